"""Which characters of an answer's text are control tokens."""

from __future__ import annotations


class FedText:
    """Knows the places of control tokens in all of the text so far, which it does not keep."""

    def __init__(self) -> None:
        self.length = 0
        self._control: list[tuple[int, int]] = []  # beginnings and ends, in order

    def add(self, text: str, num_control: int) -> None:
        """More text, of which the last ``num_control`` characters are one control token."""
        self.length += len(text)
        if num_control:
            self._control.append((self.length - num_control, self.length))

    def is_control(self, place: int) -> bool:
        """Whether a control token begins at ``place``."""
        return any(begin == place for begin, _ in reversed(self._control))

    def plain(self, rest: str, num_taken: int | None = None) -> str:
        """The first characters of ``rest``, which ends where the text does, without control
        tokens; all of them unless told otherwise."""
        return self.plain_at(self.length - len(rest), rest[:num_taken])

    def plain_at(self, place: int, text: str) -> str:
        """The ``text`` that is at ``place``, without control tokens."""
        for begin, end in reversed(self._control):
            if end <= place:
                break
            text = text[: max(begin - place, 0)] + text[max(end - place, 0) :]
        return text
