// Which answers still count when they overtake each other.
async ({ load, test, equal }) => {
  const { inOrder } = await load("js/in_order.js");

  await test("answers in the order of their questions all count", () => {
    const begin = inOrder();
    const [first, second] = [begin(), begin()];
    equal([first(), second()], [true, true]);
  });

  await test("an earlier one that comes late does not", () => {
    const begin = inOrder();
    const [first, second, third] = [begin(), begin(), begin()];
    equal([second(), first(), third()], [true, false, true]);
  });

  await test("a slow answer counts while later ones are on their way", () => {
    const begin = inOrder();
    const [first] = [begin(), begin(), begin()];
    equal(first(), true);
  });

  await test("what was asked for something else is forgotten", () => {
    const begin = inOrder();
    const old = begin();
    begin.forget();
    const later = begin();
    equal([old(), later()], [false, true]);
  });

  await test("two orders know nothing of each other", () => {
    const [one, other] = [inOrder(), inOrder()];
    const slow = one();
    other()();
    equal(slow(), true);
  });
};
