"""LangChain's own class for an endpoint on Modal, in a chain: python modal_chain.py ENDPOINT QUESTION"""

import sys

from langchain.chains import LLMChain
from langchain.llms import Modal
from langchain.prompts import PromptTemplate

endpoint, question = sys.argv[1:]
llm = Modal(endpoint_url=endpoint, model_kwargs={"max_tokens": 100})
prompt = PromptTemplate(template="{question}", input_variables=["question"])

print(LLMChain(prompt=prompt, llm=llm).run(question))
print((prompt | llm).invoke({"question": question}))
print((prompt | llm.bind(stop=["2"])).invoke({"question": question}))
