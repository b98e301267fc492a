#include "xen/host_facts.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "xen/files.h"

#define MAX_PROC (4u << 20)

/* ---- /proc/cpuinfo ---- */

static void take_text(char *out, size_t size, const char *s, size_t n)
{
	if (n >= size)
		n = size - 1;
	/* Cutting must leave whole characters. */
	while (n > 0 && !text_valid(s, n))
		n--;
	snprintf(out, size, "%.*s", (int)n, s);
}

static void take_number(uint32_t *out, const char *s, size_t n)
{
	int64_t i;

	n = strcspn(s, ".\n") < n ? strcspn(s, ".\n") : n; /* MHz */
	if (int_parse(s, n, &i) && i >= 0 && i <= UINT32_MAX)
		*out = (uint32_t)i;
}

static void take_line(struct xen_host *h, const char *key, size_t key_len,
		      const char *s, size_t n)
{
	const struct {
		const char *key;
		char *text;
		size_t size;
		uint32_t *number;
	} wanted[] = {
		{ "model name", h->cpu_model, sizeof(h->cpu_model), NULL },
		{ "vendor_id", h->cpu_vendor, sizeof(h->cpu_vendor), NULL },
		{ "flags", h->cpu_flags, sizeof(h->cpu_flags), NULL },
		{ "cpu family", NULL, 0, &h->cpu_family },
		{ "model", NULL, 0, &h->cpu_model_number },
		{ "stepping", NULL, 0, &h->cpu_stepping },
		{ "cpu MHz", NULL, 0, &h->cpu_mhz },
	};

	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		if (strlen(wanted[i].key) != key_len ||
		    memcmp(wanted[i].key, key, key_len))
			continue;
		if (wanted[i].text)
			take_text(wanted[i].text, wanted[i].size, s, n);
		else
			take_number(wanted[i].number, s, n);
	}
}

void host_facts_cpuinfo(struct xen_host *h, const char *text)
{
	for (const char *end; *text && *text != '\n'; text = end + !!*end) {
		const char *colon = strchr(text, ':'), *value;
		size_t key;

		end = text + strcspn(text, "\n");
		if (!colon || colon > end)
			continue;
		key = (size_t)(colon - text);
		while (key > 0 && strchr(" \t", text[key - 1]))
			key--;
		value = colon + 1 + strspn(colon + 1, " \t");
		if (value < end)
			take_line(h, text, key, value, (size_t)(end - value));
	}
}

/* ---- /proc/stat ---- */

int64_t host_facts_boot_time(const char *text)
{
	const char *p = !strncmp(text, "btime ", 6) ? text :
						      strstr(text, "\nbtime ");
	int64_t seconds;

	if (!p)
		return 0;
	p += strspn(p, "\nbtime ");
	return int_parse(p, strcspn(p, "\n"), &seconds) && seconds > 0 ?
		       seconds : 0;
}

/* ---- this machine ---- */

void host_facts_learn(struct xen_host *h)
{
	_cleanup_(buf_deinit) struct buf cpus = BUF_INIT, stat = BUF_INIT;
	struct utsname u;

	file_kernel_boot(h->boot_id, sizeof(h->boot_id));
	if (file_read("/proc/cpuinfo", MAX_PROC, &cpus) == 0)
		host_facts_cpuinfo(h, buf_cstr(&cpus));
	if (file_read("/proc/stat", MAX_PROC, &stat) == 0)
		h->boot_time = host_facts_boot_time(buf_cstr(&stat));
	if (uname(&u) == 0)
		take_text(h->kernel, sizeof(h->kernel), u.release,
			  strlen(u.release));
}
