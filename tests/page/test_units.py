"""The page's modules, tested in the browser that runs them: unit/*.js."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.page.files import read_page
from tests.integration.api_rig import Rig
from tests.page.browsing import Opener

_UNITS = sorted((Path(__file__).parent / "unit").glob("*.js"))
_HARNESS = """
async ([prefix, source]) => {
  const failures = [];
  let num = 0;
  const text = (value) => JSON.stringify(value);
  const equal = (found, wanted, what = "") => {
    if (text(found) === text(wanted)) return;
    throw new Error(`${what} ${text(found)} is not ${text(wanted)}`);
  };
  const throws = (call, part) => {
    try {
      call();
    } catch (error) {
      return equal(error.message.includes(part), true, error.message);
    }
    throw new Error("nothing was thrown");
  };
  const test = async (name, call) => {
    num += 1;
    try {
      await call();
    } catch (error) {
      failures.push(`${name}: ${error.message}`);
    }
  };
  await (SOURCE)({ load: (name) => import(prefix + name), test, equal, throws });
  return [num, failures];
}
"""


@pytest.mark.parametrize("unit", _UNITS, ids=lambda path: path.stem)
def test_a_module_does_what_its_unit_says(unit: Path, rig: Rig, open_page: Opener) -> None:
    page = open_page(rig.url, "/ui/#/settings")
    source = unit.read_text().rstrip().rstrip(";")
    code = "\n".join(line for line in source.splitlines() if not line.startswith("//"))
    harness = _HARNESS.replace("SOURCE", code)
    num, failures = page.evaluate(harness, [f"/ui/-/{read_page().build}/", ""])
    assert failures == []
    assert num > 4
