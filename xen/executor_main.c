/* xenpool-executor: its options. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "xen/executor.h"
#include "xen/xl_process.h"

#define DEFAULT_MEMORY_MIB 16384
#define DEFAULT_CPUS 8
#define DEFAULT_WORKERS 8

struct settings {
	struct executor_options o;
	const char *backend;
	char host_uuid[UUID_LEN + 1];
	int done; /* exit status + 1, when there is nothing to run */
};

static const char help_text[] =
	"usage: xenpool-executor --socket PATH --state-dir DIR [options]\n"
	"Carries out the work on VMs of this host that xenpoold asks for.\n"
	"\n"
	"  --socket PATH            where xenpoold connects (mode 0600)\n"
	"  --socket-owner USER      who owns the socket (default: this user)\n"
	"  --state-dir DIR          what outlives us; made if missing\n"
	"  --backend sim|xen        the hypervisor (default: sim)\n"
	"  --host-uuid UUID         serve the daemon of this host only\n"
	"  --migrate-address ADDR   where migrations arrive, numeric\n"
	"                           (default: 127.0.0.1)\n"
	"  --image-dir DIR          suspend images are in DIR only; may be\n"
	"                           given again (default: any folder)\n"
	"  --kernel-dir DIR         guests' kernels and ramdisks are below DIR\n"
	"                           only; may be given again (default on Xen:\n"
	"                           /boot/guest, /var/lib/xenpool-kernels)\n"
	"  --disk-dir DIR           guests' disks are below DIR only; may be\n"
	"                           given again (default on Xen:\n"
	"                           /var/lib/xenpool-disks)\n"
	"  --vncterm PATH           program that shows text consoles (default:\n"
	"                           xenpool-vncterm beside this one)\n"
	"  --console-user USER      whom it becomes when we are root\n"
	"                           (default: nobody)\n"
	"  --workers N              operations at a time (default: 8)\n"
	"  --log-level LEVEL        error, warn, info (default) or debug\n"
	"  --help, --version\n"
	"\n"
	"For --backend=xen, which migrates only when given all three:\n"
	"  --cert FILE --key FILE   this host's, as the daemon's server.crt\n"
	"                           and server.key\n"
	"  --trust FILE             the daemon's members.json: whom a\n"
	"                           migration may come from or go to\n"
	"and\n"
	"  --device-model root      HVM guests' QEMU keeps all rights of root:\n"
	"                           for guests with disks in qcow2 or VHD\n"
	"                           files, or that shall be migrated\n"
	"                           (default: restricted)\n"
	"\n"
	"For --backend=sim:\n"
	"  --memory-mib N           memory of the host (default: 16384)\n"
	"  --cpus N                 (default: 8)\n"
	"  --reboot                 begin as if the host had been restarted:\n"
	"                           without domains\n";

static int usage(const char *what, const char *arg)
{
	fprintf(stderr, "xenpool-executor: %s: %s (see --help)\n", what, arg);
	return -EINVAL;
}

static int number(const char *name, const char *text, int64_t max, int64_t *ret)
{
	if (int_parse(text, strlen(text), ret) && *ret >= 1 && *ret <= max)
		return 0;
	return usage(name, "not a number that it can be");
}

static int set_socket(struct settings *s, const char *arg)
{
	s->o.socket_path = arg;
	return 0;
}

static int set_owner(struct settings *s, const char *arg)
{
	s->o.socket_owner = arg;
	return 0;
}

static int set_state_dir(struct settings *s, const char *arg)
{
	s->o.state_dir = arg;
	return 0;
}

static int set_backend(struct settings *s, const char *arg)
{
	s->backend = arg;
	return 0;
}

static int set_host(struct settings *s, const char *arg)
{
	if (!domain_uuid(arg, s->host_uuid))
		return usage("--host-uuid", "not a uuid");
	s->o.host_uuid = s->host_uuid;
	return 0;
}

static int set_migrate_address(struct settings *s, const char *arg)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, arg, &four) == 1 ?
		    four.s_addr == INADDR_ANY :
		    inet_pton(AF_INET6, arg, &six) != 1 ||
			    IN6_IS_ADDR_UNSPECIFIED(&six))
		return usage("--migrate-address",
			     "not a numeric address that others can reach");
	s->o.migrate_address = arg;
	return 0;
}

static int add_dir(struct dirs *d, const char *option, const char *arg)
{
	size_t n = strlen(arg);

	if (*arg != '/' || n < 2 || arg[n - 1] == '/')
		return usage(option,
			     "not an absolute path without a / at its end");
	if (d->n == DIRS_MAX)
		return usage(option, "given too often");
	d->dir[d->n++] = arg;
	return 0;
}

static int set_image_dir(struct settings *s, const char *arg)
{
	return add_dir(&s->o.allowed.images, "--image-dir", arg);
}

static int set_kernel_dir(struct settings *s, const char *arg)
{
	return add_dir(&s->o.allowed.kernels, "--kernel-dir", arg);
}

static int set_disk_dir(struct settings *s, const char *arg)
{
	return add_dir(&s->o.allowed.disks, "--disk-dir", arg);
}

static int set_vncterm(struct settings *s, const char *arg)
{
	s->o.vncterm = arg;
	return 0;
}

static int set_console_user(struct settings *s, const char *arg)
{
	s->o.console_user = arg;
	return 0;
}

static int set_cert(struct settings *s, const char *arg)
{
	s->o.cert = arg;
	return 0;
}

static int set_key(struct settings *s, const char *arg)
{
	s->o.key = arg;
	return 0;
}

static int set_trust(struct settings *s, const char *arg)
{
	s->o.trust = arg;
	return 0;
}

static int set_device_model(struct settings *s, const char *arg)
{
	s->o.dm_root = !strcmp(arg, "root");
	if (!s->o.dm_root && strcmp(arg, "restricted") != 0)
		return usage("--device-model", "restricted or root");
	return 0;
}

static int set_workers(struct settings *s, const char *arg)
{
	int64_t i;
	int r = number("--workers", arg, 64, &i);

	s->o.workers = (unsigned)i;
	return r;
}

static int set_memory(struct settings *s, const char *arg)
{
	int64_t i;
	int r = number("--memory-mib", arg, 64 << 20, &i);

	s->o.memory_mib = (uint64_t)i;
	return r;
}

static int set_cpus(struct settings *s, const char *arg)
{
	int64_t i;
	int r = number("--cpus", arg, 8192, &i);

	s->o.cpus = (uint32_t)i;
	return r;
}

static int set_reboot(struct settings *s, const char *arg)
{
	s->o.reboot = true;
	return 0;
}

static int set_log_level(struct settings *s, const char *arg)
{
	enum log_level level;

	if (!log_level_parse(arg, &level))
		return usage("--log-level", "error, warn, info or debug");
	log_set_level(level);
	return 0;
}

static int show_help(struct settings *s, const char *arg)
{
	fputs(help_text, stdout);
	s->done = 1;
	return 0;
}

static int show_version(struct settings *s, const char *arg)
{
	puts("xenpool-executor " PACKAGE_VERSION);
	s->done = 1;
	return 0;
}

static const struct setting {
	const char *name;
	int has_arg;
	int (*set)(struct settings *s, const char *arg);
} known[] = {
	{ "socket", required_argument, set_socket },
	{ "socket-owner", required_argument, set_owner },
	{ "state-dir", required_argument, set_state_dir },
	{ "backend", required_argument, set_backend },
	{ "host-uuid", required_argument, set_host },
	{ "migrate-address", required_argument, set_migrate_address },
	{ "image-dir", required_argument, set_image_dir },
	{ "kernel-dir", required_argument, set_kernel_dir },
	{ "disk-dir", required_argument, set_disk_dir },
	{ "vncterm", required_argument, set_vncterm },
	{ "console-user", required_argument, set_console_user },
	{ "cert", required_argument, set_cert },
	{ "key", required_argument, set_key },
	{ "trust", required_argument, set_trust },
	{ "device-model", required_argument, set_device_model },
	{ "workers", required_argument, set_workers },
	{ "memory-mib", required_argument, set_memory },
	{ "cpus", required_argument, set_cpus },
	{ "reboot", no_argument, set_reboot },
	{ "log-level", required_argument, set_log_level },
	{ "help", no_argument, show_help },
	{ "version", no_argument, show_version },
};

static int parse(struct settings *s, int argc, char **argv)
{
	struct option options[ARRAY_LEN(known) + 1] = { 0 };
	int i = 0, r;

	for (size_t k = 0; k < ARRAY_LEN(known); k++) {
		options[k].name = known[k].name;
		options[k].has_arg = known[k].has_arg;
	}
	while (true) {
		int c = getopt_long(argc, argv, "", options, &i);

		if (c < 0)
			break;
		if (c != 0)
			return -EINVAL; /* getopt has said why */
		r = known[i].set(s, optarg);
		if (r < 0 || s->done)
			return r;
	}
	if (optind < argc)
		return usage("not an option", argv[optind]);
	if (!*s->o.cert != !*s->o.key || !*s->o.cert != !*s->o.trust)
		return usage("needed together", "--cert, --key and --trust");
	if (!s->o.socket_path || !s->o.state_dir)
		return usage("needed", "--socket and --state-dir");
	return 0;
}

static int choose_backend(struct settings *s)
{
	static const struct xen_ops *const backends[] = { &xen_sim_ops,
							  &xen_xl_ops };

	for (size_t i = 0; i < ARRAY_LEN(backends); i++)
		if (!strcmp(s->backend, backends[i]->name)) {
			s->o.ops = backends[i];
			return 0;
		}
	return usage("--backend", "sim or xen");
}

/* The simulated Xen opens neither kernels nor disks; root on a real one gives
 * a guest what it opens for it. */
static void close_dirs(struct settings *s)
{
	static const struct allowed defaults = {
		.kernels = { { "/boot/guest", "/var/lib/xenpool-kernels" }, 2 },
		.disks = { { "/var/lib/xenpool-disks" }, 1 },
	};

	if (s->o.ops != &xen_xl_ops)
		return;
	if (s->o.allowed.kernels.n == 0)
		s->o.allowed.kernels = defaults.kernels;
	if (s->o.allowed.disks.n == 0)
		s->o.allowed.disks = defaults.disks;
}

/* Memory of guests: for us alone, and in no folder that others can replace it
 * in. Without one suspending fails, and says so. */
static int make_image_dir(const char *dir)
{
	struct stat st;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		log_warn("cannot make the folder for images %s: %s", dir,
			 strerror(errno));
		return 0;
	}
	if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode) ||
	    st.st_uid != geteuid() || (st.st_mode & 022))
		return usage("--image-dir", "not a folder of ours, which nobody "
			     "else may write to");
	return 0;
}

static int make_image_dirs(const struct dirs *d)
{
	for (size_t i = 0; i < d->n; i++)
		if (make_image_dir(d->dir[i]) < 0)
			return -1;
	return 0;
}

/* A program of the same folder as this one. */
static void name_beside(const char *name, char *out, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", out, size - 1);
	char *slash;

	out[MAX(n, (ssize_t)0)] = '\0';
	slash = strrchr(out, '/');
	n = slash ? slash + 1 - out : 0;
	snprintf(out + n, size - (size_t)n, "%s", name);
}

int main(int argc, char **argv)
{
	char vncterm[1024];
	struct settings s = {
		.o = {
			.host_uuid = "",
			.migrate_address = "127.0.0.1",
			.cert = "",
			.key = "",
			.trust = "",
			.memory_mib = DEFAULT_MEMORY_MIB,
			.cpus = DEFAULT_CPUS,
			.workers = DEFAULT_WORKERS,
			.vncterm = vncterm,
			.console_user = "nobody",
		},
		.backend = "sim",
	};

	if (argc > 1 && !strcmp(argv[1], XL_WORKER_OPTION))
		return xl_worker_main();
	name_beside("xenpool-vncterm", vncterm, sizeof(vncterm));
	if (parse(&s, argc, argv) < 0)
		return 2;
	if (s.done)
		return s.done - 1;
	if (choose_backend(&s) < 0 || make_image_dirs(&s.o.allowed.images) < 0)
		return 2;
	close_dirs(&s);
	return executor_run(&s.o) < 0 ? 1 : 0;
}
