"""How hard is a request? Classifiers, each with an opinion and an honest confidence in it."""

from tierline.classify.base import Classifier, Consult, Question, View, fingerprint_of
from tierline.classify.cache import CacheStats, VerdictCache
from tierline.classify.cascade import CascadeClassifier, default_classifier
from tierline.classify.claude import ClaudeClassifier
from tierline.classify.fixed import FixedClassifier
from tierline.classify.keyword import KeywordClassifier
from tierline.classify.labelled import Labelled, Labels, Progress
from tierline.classify.local import LocalClassifier
from tierline.classify.signal import SignalClassifier
from tierline.values import Classification

__all__ = [
    "CacheStats",
    "CascadeClassifier",
    "Classification",
    "Classifier",
    "ClaudeClassifier",
    "Consult",
    "FixedClassifier",
    "KeywordClassifier",
    "Labelled",
    "Labels",
    "LocalClassifier",
    "Progress",
    "Question",
    "SignalClassifier",
    "VerdictCache",
    "View",
    "default_classifier",
    "fingerprint_of",
]
