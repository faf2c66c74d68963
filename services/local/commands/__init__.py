"""The commands of `headwater`, a module a subject. Each imports what it needs when it's called, so that --help is quick."""
