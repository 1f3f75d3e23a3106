"""Call the LLM with a stop word and a log file: python greeting.py LOGFILE"""

import sys

from chatglm import ChatGLM
from langchain.callbacks import FileCallbackHandler

logfile = sys.argv[1]
for llm in (ChatGLM(), ChatGLM(send_stop=True)):
    print(llm("你好", stop=["欢迎"], callbacks=[FileCallbackHandler(logfile)]))
print(llm)
