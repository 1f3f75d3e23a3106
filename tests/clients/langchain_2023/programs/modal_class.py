"""LangChain's own class for an endpoint on Modal, called directly: python modal_class.py ENDPOINT PROMPT"""

import sys

from langchain.llms import Modal

endpoint, prompt = sys.argv[1:]
print(Modal(endpoint_url=endpoint)(prompt))
