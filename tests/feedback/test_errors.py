import builtins
import inspect

from feedback import errors

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.FeedbackError)
}


def test_the_tree_in_the_docstring_lists_every_class_and_its_builtin():
    tree = [line for line in errors.__doc__.splitlines() if "──" in line]
    drawn = {}
    for line in tree:
        name, _, rest = line.split("── ")[1].partition(" ")
        drawn[name] = rest.split("(also ")[1].split(")")[0]
    assert drawn.keys() == CLASSES.keys() - {"FeedbackError"}
    for name, builtin in drawn.items():
        assert issubclass(CLASSES[name], getattr(builtins, builtin)), name


def test_the_tree_shows_who_inherits_whom():
    tree = [line for line in errors.__doc__.splitlines() if "──" in line]
    parents = ["FeedbackError"]
    for line in tree:
        depth = line.index("──") // 4 + 1
        name = line.split("── ")[1].split()[0]
        assert CLASSES[parents[depth - 1]] in CLASSES[name].__bases__
        parents[depth:] = [name]


def test_every_problem_is_kept_though_the_message_shows_only_some():
    problems = [f"Problem {number}." for number in range(20)]
    error = errors.InvalidRatingError(*problems)
    assert error.problems == tuple(problems)
    assert (
        str(error) == "Problem 0. Problem 1. Problem 2. Problem 3. Problem 4. And 15 more problems."
    )


def test_few_problems_are_all_shown():
    assert str(errors.InvalidRatingError("One.", "Two.")) == "One. Two."
