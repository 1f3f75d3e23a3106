"""What the class of 2023 sees of an error: the status and OpenAI's envelope."""

from chatglm import ChatGLM

try:
    ChatGLM(temperature=9)("你好")
except ValueError as error:
    print(error)
