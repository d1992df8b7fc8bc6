"""Keeps what schemathesis makes up within what a test has time for: small jobs of a model that is there. What is wrong with a body stays wrong."""

import re

import schemathesis

MODEL = "countdown@cr8"
# As the document has it: a name that is none is to be refused as it is.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
LARGEST = {"n": 2, "width": 2, "max_tokens": 4, "max_completion_tokens": 4, "max_output_tokens": 4, "length": 4}
# A request that says nothing of its length means all of the context.
LENGTHS = {
    "/v1/chat/completions": ("max_tokens", ("max_tokens", "max_completion_tokens", "hyperscale")),
    "/v1/responses": ("max_output_tokens", ("max_output_tokens", "hyperscale")),
}


def small(value):
    if isinstance(value, list):
        return [small(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {name: bounded(name, small(field)) for name, field in value.items()}


def bounded(name, field):
    if name == "lengths" and isinstance(field, list):
        return [bounded("length", length) for length in field[:2]]
    is_number = isinstance(field, (int, float)) and not isinstance(field, bool)
    return LARGEST[name] if name in LARGEST and is_number and field > LARGEST[name] else field


def with_length(path, body):
    if path in LENGTHS:
        name, any_of = LENGTHS[path]
        if not any(field in body for field in any_of):
            body[name] = LARGEST[name]
        if isinstance(body.get("hyperscale"), dict):
            body["hyperscale"].setdefault("length", LARGEST["length"])
    elif path.startswith("/v1/jobs"):
        budget = body.setdefault("budget", {})
        if isinstance(budget, dict) and "lengths" not in budget:
            budget.setdefault("length", LARGEST["length"])
            budget.setdefault("width", LARGEST["width"])


@schemathesis.hook
def map_body(context, body):
    body = small(body)
    if isinstance(body, dict) and isinstance(body.get("model"), str) and NAME.fullmatch(body["model"]):
        body["model"] = MODEL
        with_length(context.operation.path, body)
    return body
