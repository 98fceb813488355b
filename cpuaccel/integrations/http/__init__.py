"""An HTTP application with OpenAI's routes over optimized models. Servers such as uvicorn run it.

Example:

    app = create_app(embeddings=load_embedder(folder))  # uvicorn module:app
"""

from cpuaccel.integrations.http.app import Limits as Limits
from cpuaccel.integrations.http.app import create_app as create_app
from cpuaccel.integrations.http.logs import JsonFormatter as JsonFormatter
