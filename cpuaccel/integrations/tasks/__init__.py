"""Tokenizing texts and computing them in batches, for ``Batcher`` and Ray.

The functions ``load_...`` make a task of a folder or a hub id, with an optimized model.
"""

from cpuaccel.integrations.tasks.classify import Classify as Classify
from cpuaccel.integrations.tasks.classify import ClassifyTokens as ClassifyTokens
from cpuaccel.integrations.tasks.classify import Label as Label
from cpuaccel.integrations.tasks.classify import load_classifier as load_classifier
from cpuaccel.integrations.tasks.classify import load_token_classifier as load_token_classifier
from cpuaccel.integrations.tasks.embed import Embed as Embed
from cpuaccel.integrations.tasks.embed import load_embedder as load_embedder
from cpuaccel.integrations.tasks.generate import Generate as Generate
from cpuaccel.integrations.tasks.generate import load_generator as load_generator
from cpuaccel.integrations.tasks.rerank import Rerank as Rerank
from cpuaccel.integrations.tasks.rerank import load_reranker as load_reranker
