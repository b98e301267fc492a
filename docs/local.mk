dist_man_MANS += docs/man/poolbench.1 docs/man/xenpool-executor.8 \
	docs/man/xenpool-vncterm.8 \
	docs/man/xenpoold.8 docs/man/xenpoolctl.1

EXTRA_DIST += docs/architecture.md docs/consistency.md docs/decisions.md \
	docs/formats.md docs/operations.md docs/performance.md docs/schema.md docs/security.md \
	docs/faults.md docs/simulation.md docs/wire.md docs/xenlab.md
