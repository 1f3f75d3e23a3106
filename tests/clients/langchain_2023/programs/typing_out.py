"""Type the answer as it arrives."""

import sys

from chatglm import ChatGLM
from langchain.callbacks.streaming_stdout import StreamingStdOutCallbackHandler

llm = ChatGLM(send_stop=True, callbacks=[StreamingStdOutCallbackHandler()])
for _ in llm.stream("你好", stop=["欢迎"]):
    pass
sys.stdout.write("\n")
