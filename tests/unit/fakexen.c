/* Lets xenstored run where there is no Xen: loaded before it, answers what it
 * asks of the hypervisor. The store itself, its watches, permissions and
 * transactions are the real ones.
 *
 * Every domain that is introduced is there for good; its ring is an idle page,
 * its event channel leads nowhere. So nothing here is proof of anything about
 * Xen.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

static char handle[64]; /* what all handles point to */
static int silent = -1; /* a descriptor that is never ready */

/* Dom0's own channel and ring, which its kernel would offer. */
static int own_file(const char *path)
{
	int fd;

	if (strcmp(path, "/proc/xen/xsd_port") &&
	    strcmp(path, "/proc/xen/xsd_kva"))
		return -1;
	fd = memfd_create("xsd", MFD_CLOEXEC);
	if (fd >= 0 && (ftruncate(fd, getpagesize()) < 0 ||
			(strstr(path, "port") && pwrite(fd, "1", 1, 0) != 1)))
		_exit(99);
	return fd;
}

int open(const char *path, int flags, ...)
{
	int (*next)(const char *, int, ...);
	mode_t mode = 0;
	int fd = own_file(path);
	va_list ap;

	if (fd >= 0)
		return fd;
	if (flags & O_CREAT) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	*(void **)&next = dlsym(RTLD_NEXT, "open");
	return next(path, flags, mode);
}

xc_interface *xc_interface_open(xentoollog_logger *log,
				xentoollog_logger *dombuild, unsigned flags)
{
	return (xc_interface *)handle;
}

int xc_interface_close(xc_interface *x)
{
	return 0;
}

int xc_domain_getinfo(xc_interface *x, uint32_t first, unsigned max,
		      xc_dominfo_t *info)
{
	if (max == 0)
		return 0;
	memset(info, 0, sizeof(*info));
	info->domid = first;
	return 1;
}

xengnttab_handle *xengnttab_open(struct xentoollog_logger *log, unsigned flags)
{
	return (xengnttab_handle *)handle;
}

int xengnttab_close(xengnttab_handle *g)
{
	return 0;
}

int xengnttab_set_max_grants(xengnttab_handle *g, uint32_t n)
{
	return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *g, uint32_t domid,
			      uint32_t ref, int prot)
{
	void *p = mmap(NULL, (size_t)getpagesize(), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int xengnttab_unmap(xengnttab_handle *g, void *p, uint32_t n)
{
	return munmap(p, (size_t)getpagesize() * n);
}

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *log, unsigned flags)
{
	int pair[2];

	if (pipe2(pair, O_CLOEXEC) < 0)
		return NULL;
	silent = pair[0];
	return (xenevtchn_handle *)handle;
}

int xenevtchn_fd(xenevtchn_handle *e)
{
	return silent;
}

int xenevtchn_notify(xenevtchn_handle *e, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unmask(xenevtchn_handle *e, evtchn_port_t port)
{
	return 0;
}

int xenevtchn_unbind(xenevtchn_handle *e, evtchn_port_t port)
{
	return 0;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *e, unsigned v)
{
	return 1;
}

xenevtchn_port_or_error_t
xenevtchn_bind_interdomain(xenevtchn_handle *e, uint32_t domid,
			   evtchn_port_t port)
{
	static int ports = 1;

	return ++ports;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *e)
{
	errno = EAGAIN;
	return -1;
}
