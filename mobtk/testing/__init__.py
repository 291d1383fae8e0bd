"""Laws that every part is held to, and small ready-made inputs to hold it to them with.

In a plugin's own tests, one line runs every law over every part it brings:

    @pytest.mark.parametrize(("part", "law"), mobtk.testing.cases("acme"))
    def test_law(part, law):
        law(part)
"""

from mobtk.testing.checking import Verdict as Verdict
from mobtk.testing.checking import cases as cases
from mobtk.testing.checking import check_parts as check_parts
from mobtk.testing.checking import with_options as with_options
from mobtk.testing.laws import LAWS as LAWS
