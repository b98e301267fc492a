/* The daemon's settings: long options, or the same names as `name = value`
 * lines of a file given with --config (options win). */
#ifndef POOL_OPTIONS_H
#define POOL_OPTIONS_H

#include "base/util.h"

struct options {
	char *data_dir;
	char *image_dir; /* NULL: DATA-DIR/images, which is made */
	char *address;
	char *hostname;
	char *executor_socket;
	char *unix_socket;
	char *www_dir;
	char *root_password_file;
	char *log_level;
	unsigned https_port, http_port, peer_port;
	unsigned front_threads;
	unsigned election_timeout_ms, heartbeat_ms, snapshot_threshold;
	unsigned min_free_mib;
	unsigned login_delay_ms, host_dead_after_ms;
	unsigned restart_gap_s;
	unsigned max_body_kib;
	unsigned history_days, history_mib;
};

/* Fills o from defaults, file and command line. 0: go on; 1: help or version
 * was printed, exit successfully; -1: wrong usage, explained on stderr. */
int options_parse(struct options *o, int argc, char **argv);
void options_free(struct options *o);

#endif
