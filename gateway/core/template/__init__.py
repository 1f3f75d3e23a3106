"""Chat templates: from messages to the prompt that a model was trained on. Pure.

front.py     the data at the head of a template file
sandbox.py   Jinja, as Hugging Face gives it
arrange.py   messages in the form that a template can show
control.py   user text never becomes control tokens
image.py     what stands in a prompt for an image
fill_in.py   how a model is asked for the text between two others
parts.py     contents as lists of parts, for models that see
probe.py     asks a model's own template what it does
compile.py   the text of a template -> Template
"""

from gateway.core.template.compile import Tokens, compile_model, compile_template
from gateway.core.template.control import Guard, Mode
from gateway.core.template.errors import ControlStringError, TemplateError
from gateway.core.template.fill_in import FillIn
from gateway.core.template.front import split
from gateway.core.template.image import ImageToken
from gateway.core.template.template import Template, neutralise

__all__ = [
    "ControlStringError",
    "FillIn",
    "Guard",
    "ImageToken",
    "Mode",
    "Template",
    "TemplateError",
    "Tokens",
    "compile_model",
    "compile_template",
    "neutralise",
    "split",
]
