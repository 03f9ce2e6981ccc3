"""An engine without a model: deterministic, with a chosen pace, under the same contract.

Its likeliest text counts: the token at position ``i`` of a sequence is character ``i % 8`` of
``"%07d " % (i // 8)``, so that a lost, duplicated or foreign token shows in the text. Every 512th
position ends the generation. With an adapter, whatever its contents, the numbers begin with ``a``.
The model name sets the time per step: ``fake``, ``fake-20ms``. One with ``-gpu``, as
``fake-gpu-20ms``, says that it computes on a GPU. A prompt may contain commands that cause faults,
for tests (``faults.py``).
"""

from workers.engines.fake.engine import FakeEngine, open_fake
from workers.engines.fake.tokenizer import FakeTokenizer

__all__ = ["FakeEngine", "FakeTokenizer", "open_fake"]
