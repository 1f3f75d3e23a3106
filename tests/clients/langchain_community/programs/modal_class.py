"""LangChain's own class for prompts, as people call it: python modal_class.py ENDPOINT PROMPT"""

import sys

from langchain_classic.chains import LLMChain
from langchain_community.llms import Modal
from langchain_core.prompts import PromptTemplate

endpoint, question = sys.argv[1:]
llm = Modal()  # this class takes no arguments: what it is constructed with gets lost
llm.endpoint_url = endpoint
llm.model_kwargs = {"max_tokens": 100}
prompt = PromptTemplate.from_template("{question}")

print(LLMChain(llm=llm, prompt=prompt).run(question))
print((prompt | llm).invoke({"question": question}))
print((prompt | llm.bind(stop=["2"])).invoke({"question": question}))
