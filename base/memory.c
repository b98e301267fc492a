#include "base/memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/failpoint.h"

static bool read_number(const char *path, const char *format, uint64_t *ret)
{
	char line[PATH_MAX];
	FILE *f = fopen(path, "re");
	unsigned long long n;
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		found = sscanf(line, format, &n) == 1;
	if (f)
		fclose(f);
	if (found)
		*ret = n;
	return found;
}

/* "0::/path" in /proc/self/cgroup is where we are in the unified hierarchy. */
static bool cgroup_path(char *ret, size_t size)
{
	char line[PATH_MAX];
	FILE *f = fopen("/proc/self/cgroup", "re");
	bool found = false;

	while (f && !found && fgets(line, sizeof line, f))
		found = !strncmp(line, "0::/", 4);
	if (f)
		fclose(f);
	if (!found)
		return false;
	line[strcspn(line, "\n")] = '\0';
	return (size_t)snprintf(ret, size, "/sys/fs/cgroup%s", line + 3) < size;
}

static uint64_t left_in_cgroup(void)
{
	char dir[PATH_MAX], path[PATH_MAX + 20];
	uint64_t max, used;

	if (!cgroup_path(dir, sizeof dir))
		return UINT64_MAX;
	snprintf(path, sizeof path, "%s/memory.max", dir);
	if (!read_number(path, "%llu", &max))
		return UINT64_MAX;
	snprintf(path, sizeof path, "%s/memory.current", dir);
	if (!read_number(path, "%llu", &used))
		return UINT64_MAX;
	return max - MIN(used, max);
}

uint64_t memory_available(void)
{
	int64_t pretended = failpoint("memory.available");
	uint64_t kib;

	if (pretended)
		return (uint64_t)pretended;
	if (!read_number("/proc/meminfo", "MemAvailable: %llu kB", &kib))
		kib = UINT64_MAX >> 10;
	return MIN(kib << 10, left_in_cgroup());
}
