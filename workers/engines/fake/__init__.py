"""An engine without a model: deterministic, at a pace of choice, under the contract of all.

Its likeliest text counts: the token at position ``i`` of a sequence is character ``i % 8`` of
``"%07d " % (i // 8)``, so that a lost, doubled or foreign token shows in the text. Each 512th
position ends the generation. With an adapter, whatever its contents, the numbers begin with ``a``.
The model name sets the pace: ``fake``, ``fake-20ms`` (per step). For tests of faults, a prompt may
hold a command (``faults.py``).
"""

from workers.engines.fake.engine import FakeEngine, open_fake
from workers.engines.fake.tokenizer import FakeTokenizer

__all__ = ["FakeEngine", "FakeTokenizer", "open_fake"]
