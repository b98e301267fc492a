EXTRA_DIST += docs/architecture.md docs/consistency.md docs/decisions.md \
	docs/formats.md docs/performance.md docs/schema.md docs/wire.md
