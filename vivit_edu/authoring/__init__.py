"""For maintainers only: from the masters to student notebooks, the rules, execution, classroom and site."""
