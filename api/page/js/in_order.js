// Answers that overtake each other: one that was asked for earlier never replaces a later one.

/** `const begin = inOrder(); const counts = begin(); … await …; if (counts()) show(it)`. */
export function inOrder() {
  let asked = 0;
  let shown = 0;
  const begin = () => {
    const mine = ++asked;
    return () => {
      if (mine <= shown) return false;
      shown = mine;
      return true;
    };
  };
  /** Answers to what was asked so far no longer count: something else is to be shown. */
  begin.forget = () => {
    shown = asked;
  };
  return begin;
}
