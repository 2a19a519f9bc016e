"""What the operator sets: `stellwerk.yaml`, with `STELLWERK_*` variables on top, as frozen settings.

Read by `app` and `cli` only; every other object receives small settings of its own.

    settings   the sections and keys, their types, bounds, defaults and descriptions
    reading    where the file and the data folder are, and how both sources become one `Config`
    tree       the config before it is checked, every value with its place
    document   YAML into that tree
    variables  `${NAME}` inside the file, and the tree that `STELLWERK_*` adds to
    checking   the tree against the types; finds every mistake, not only the first
    rules      what types cannot say: values that must fit each other
    problems   a mistake, its place and its wording
    example    the annotated example, the JSON Schema, the effective config as text
    watch      takes over a changed file while the gateway runs
"""
