#include "xen/xl_facts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "xen/host_facts.h"

static void keep_text(char *out, size_t size, const char *s)
{
	snprintf(out, size, "%s", s ? s : "");
	if (!text_valid(out, strlen(out)))
		*out = '\0';
}

static void learn_version(libxl_ctx *ctx, struct xen_host *h)
{
	const libxl_version_info *v = libxl_get_version_info(ctx);

	if (!v)
		return;
	snprintf(h->xen_version, sizeof(h->xen_version), "%d.%d%s",
		 v->xen_version_major, v->xen_version_minor,
		 v->xen_version_extra);
	keep_text(h->xen_capabilities, sizeof(h->xen_capabilities),
		  v->capabilities);
}

static void learn_scheduler(libxl_ctx *ctx, struct xen_host *h)
{
	int id = libxl_get_scheduler(ctx);

	if (id >= 0)
		keep_text(h->scheduler, sizeof(h->scheduler),
			  libxl_scheduler_to_string((libxl_scheduler)id));
}

/* Sockets that have a processor in them. */
static void learn_topology(libxl_ctx *ctx, struct xen_host *h)
{
	int n = 0;
	libxl_cputopology *all = libxl_get_cpu_topology(ctx, &n);
	uint32_t sockets = 0;

	for (int i = 0; all && i < n; i++)
		if (all[i].socket != LIBXL_CPUTOPOLOGY_INVALID_ENTRY)
			sockets = MAX(sockets, all[i].socket + 1);
	h->cpu_sockets = sockets;
	if (all)
		libxl_cputopology_list_free(all, n);
}

void xl_facts_fixed(libxl_ctx *ctx, struct xen_host *ret)
{
	memset(ret, 0, sizeof(*ret));
	host_facts_learn(ret);
	learn_version(ctx, ret);
	learn_scheduler(ctx, ret);
	learn_topology(ctx, ret);
}

/* As hexadecimal words, the way in which features are compared. */
static void keep_features(const uint32_t *words, size_t n, char *out,
			  size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < n && at + 9 < size; i++)
		at += (size_t)snprintf(out + at, size - at, "%s%08x",
				       i ? "-" : "", words[i]);
}

static void learn_dom0(libxl_ctx *ctx, struct xen_host *h)
{
	libxl_dominfo d;

	libxl_dominfo_init(&d);
	if (libxl_domain_info(ctx, &d, 0) == 0) {
		h->dom0_memory = d.current_memkb * 1024;
		h->dom0_vcpus = d.vcpu_online;
	}
	libxl_dominfo_dispose(&d);
}

int xl_facts_now(libxl_ctx *ctx, struct xen_host *h)
{
	const libxl_version_info *v = libxl_get_version_info(ctx);
	uint64_t page = v ? (uint64_t)v->pagesize : 4096;
	libxl_physinfo info;

	libxl_physinfo_init(&info);
	if (libxl_get_physinfo(ctx, &info))
		return -EIO;
	h->memory_total = info.total_pages * page;
	h->memory_free = (info.free_pages + info.scrub_pages) * page;
	h->cpu_count = info.nr_cpus;
	h->cpu_mhz = info.cpu_khz / 1000;
	h->cpu_nodes = info.nr_nodes;
	h->cpu_cores_per_socket = info.cores_per_socket;
	h->cpu_threads_per_core = info.threads_per_core;
	keep_features(info.hw_cap, ARRAY_LEN(info.hw_cap), h->cpu_features,
		      sizeof(h->cpu_features));
	libxl_physinfo_dispose(&info);
	learn_dom0(ctx, h);
	return 0;
}
