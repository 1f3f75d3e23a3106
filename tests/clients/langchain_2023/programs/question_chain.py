"""A prompt, an LLM and a chain that joins them, with a log file: python question_chain.py LOGFILE QUESTION"""

import sys

from chatglm import ChatGLM
from langchain.callbacks import FileCallbackHandler
from langchain.chains import LLMChain
from langchain.prompts import PromptTemplate

logfile, question = sys.argv[1:]
handler = FileCallbackHandler(logfile)

prompt = PromptTemplate(template="重复：{question}", input_variables=["question"])
chain = LLMChain(prompt=prompt, llm=ChatGLM(), callbacks=[handler], verbose=False)

print(chain.run(question))
print(chain.run(question=question, stop=["！"]))
print(chain.apply([{"question": "一"}, {"question": "二"}]))
