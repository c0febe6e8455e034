"""Pure maths on arrays, written for one example."""
