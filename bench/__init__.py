"""Everything that methods and evaluators share; knows no method and no evaluator."""
