#include "xen/sandbox.h"

#include <errno.h>
#include <signal.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"

static int fail(const char *what, int r)
{
	log_error("sandbox: %s: %s", what, strerror(-r));
	return r;
}

/* ---- who we are ---- */

static int find_user(const char *name, uid_t *ret_uid, gid_t *ret_gid)
{
	struct passwd *pw = getpwnam(name);
	int64_t id;

	if (pw) {
		*ret_uid = pw->pw_uid;
		*ret_gid = pw->pw_gid;
		return 0;
	}
	if (!int_parse(name, strlen(name), &id) || id < 1 || id >= UINT32_MAX)
		return -ENOENT;
	*ret_uid = (uid_t)id;
	*ret_gid = (gid_t)id;
	return 0;
}

/* The user is looked up before the root folder goes, and becomes us after. */
static int leave_root(const struct sandbox *s)
{
	uid_t uid = 0;
	gid_t gid = 0;
	int r;

	if (geteuid() != 0)
		return 0;
	if (s->user) {
		r = find_user(s->user, &uid, &gid);
		if (r < 0 || uid == 0)
			return fail(s->user, r < 0 ? r : -EINVAL);
	}
	if (s->root && (chroot(s->root) < 0 || chdir("/") < 0))
		return fail(s->root, -errno);
	if (s->user && (setgroups(0, NULL) < 0 ||
			setresgid(gid, gid, gid) < 0 ||
			setresuid(uid, uid, uid) < 0))
		return fail(s->user, -errno);
	if (s->user && (setuid(0) == 0 || setgid(0) == 0))
		return fail("root's rights came back", -EPERM);
	return 0;
}

/* ---- limits ---- */

static int set_limits(const struct sandbox *s)
{
	const struct {
		int what;
		rlim_t most;
	} limits[] = {
#ifndef __SANITIZE_ADDRESS__ /* its shadow would not fit */
		{ RLIMIT_AS, s->memory },
#endif
		{ RLIMIT_CORE, 0 },
		{ RLIMIT_NOFILE, s->files },
	};

	for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
		struct rlimit l = { limits[i].most, limits[i].most };

		if (setrlimit((__rlimit_resource_t)limits[i].what, &l) < 0)
			return fail("limits", -errno);
	}
	return 0;
}

/* ---- system calls ---- */

/* What threads, memory, waiting and open descriptors need. */
static const int allowed[] = {
	SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(brk),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(close),
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(fcntl),
	SCMP_SYS(futex), SCMP_SYS(getpeername), SCMP_SYS(getpid),
	SCMP_SYS(getrandom), SCMP_SYS(getsockname), SCMP_SYS(getsockopt),
	SCMP_SYS(gettid), SCMP_SYS(gettimeofday), SCMP_SYS(lseek),
	SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(munmap),
	SCMP_SYS(nanosleep), SCMP_SYS(newfstatat), SCMP_SYS(fstat),
	SCMP_SYS(pipe), SCMP_SYS(pipe2), SCMP_SYS(poll), SCMP_SYS(ppoll),
	SCMP_SYS(pselect6), SCMP_SYS(read), SCMP_SYS(readv),
	SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(restart_syscall),
	SCMP_SYS(rseq), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_yield), SCMP_SYS(select), SCMP_SYS(sendmsg),
	SCMP_SYS(sendto), SCMP_SYS(set_robust_list), SCMP_SYS(setsockopt),
	SCMP_SYS(shutdown), SCMP_SYS(sigaltstack), SCMP_SYS(sysinfo),
	SCMP_SYS(uname), SCMP_SYS(write), SCMP_SYS(writev),
};

/* Refused but survived: libraries try these and do without. */
static const struct {
	int call, error;
} refused[] = {
	{ SCMP_SYS(open), EACCES },   { SCMP_SYS(openat), EACCES },
	{ SCMP_SYS(access), EACCES }, { SCMP_SYS(readlink), EACCES },
	{ SCMP_SYS(clone3), ENOSYS }, { SCMP_SYS(prctl), EPERM },
	{ SCMP_SYS(ioctl), ENOTTY },
};

/* New threads, no new processes; memory, but none to run code from. */
static int allow_narrowly(scmp_filter_ctx f)
{
	const int exec = 4; /* PROT_EXEC */
	int r;

	r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
			     SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD,
				     CLONE_THREAD));
	if (r == 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, exec, 0));
	if (r == 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, exec, 0));
	/* Reading limits, for the size of stacks; not setting them. */
	if (r == 0)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
				     SCMP_A2(SCMP_CMP_EQ, 0));
	return r;
}

static int add_rules(scmp_filter_ctx f)
{
	int r = allow_narrowly(f);

	for (size_t i = 0; i < ARRAY_LEN(allowed) && r == 0; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
	for (size_t i = 0; i < ARRAY_LEN(refused) && r == 0; i++)
		r = seccomp_rule_add(f, SCMP_ACT_ERRNO((uint32_t)refused[i].error),
				     refused[i].call, 0);
	return r;
}

/* Everything else ends the process. */
static int filter_calls(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = f ? add_rules(f) : -ENOMEM;

	if (r == 0) /* of all threads, together with no_new_privs */
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return r < 0 ? fail("system calls", r) : 0;
}

int sandbox_enter(const struct sandbox *s)
{
	pid_t parent = getppid();
	int r = leave_root(s);

	/* Becoming another user forgets it, so not before. */
	if (r == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		r = fail("end with the parent", -errno);
	if (r == 0 && getppid() != parent)
		r = -ESRCH;

	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = fail("no new privileges", -errno);
	if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		r = fail("not dumpable", -errno);
	if (r == 0)
		r = set_limits(s);
	return r < 0 ? r : filter_calls();
}
