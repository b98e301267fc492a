/* What guests tell: the scan of their nodes, the attention they get, what is
 * kept for the daemon. No xenstore: the nodes are a table or a whim. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/env.h"
#include "base/text.h"
#include "xen/guest_pace.h"
#include "xen/guest_scan.h"
#include "xen/guests.h"
#include "xen/host_facts.h"
#include "xen/message.h"

/* ---- a xenstore in a table ---- */

struct node {
	const char *path, *text;
	size_t n; /* 0: as long as text */
};

static bool is_child(const char *path, const char *folder, const char **name,
		     size_t *n)
{
	size_t len = strlen(folder);

	if (strncmp(path, folder, len) || path[len] != '/')
		return false;
	*name = path + len + 1;
	*n = strcspn(*name, "/");
	return true;
}

static void answer_list(struct guest_scan *s, const struct node *nodes,
			size_t n_nodes, const char *path)
{
	char (*names)[400] = xcalloc(n_nodes + 1, sizeof *names);
	const char **list = xcalloc(n_nodes + 1, sizeof *list);
	size_t n = 0;

	for (size_t i = 0; i < n_nodes; i++) {
		const char *name;
		size_t len;

		if (!is_child(nodes[i].path, path, &name, &len))
			continue;
		snprintf(names[n], sizeof names[n], "%.*s", (int)len, name);
		list[n] = names[n];
		n += n == 0 || strcmp(names[n - 1], names[n]);
	}
	guest_scan_list(s, list, n);
	free(names);
	free(list);
}

static void answer_read(struct guest_scan *s, const struct node *nodes,
			size_t n_nodes, const char *path)
{
	for (size_t i = 0; i < n_nodes; i++) {
		if (strcmp(nodes[i].path, path))
			continue;
		guest_scan_read(s, nodes[i].text,
				nodes[i].n ? nodes[i].n :
					     strlen(nodes[i].text));
		return;
	}
	guest_scan_read(s, NULL, 0);
}

static struct value *scan_of(const struct node *nodes, size_t n,
			     unsigned *ret_steps)
{
	struct guest_scan *s = guest_scan_new();
	enum guest_ask ask;
	struct value *v;
	const char *path;
	unsigned steps = 0;

	guest_scan_begin(s);
	while ((ask = guest_scan_next(s, &path)) != GUEST_DONE) {
		assert_true(strlen(path) < GUEST_MAX_PATH);
		steps++;
		if (ask == GUEST_LIST)
			answer_list(s, nodes, n, path);
		else
			answer_read(s, nodes, n, path);
	}
	assert_true(steps <= GUEST_MAX_STEPS);
	v = guest_scan_end(s);
	guest_scan_free(s);
	if (ret_steps)
		*ret_steps = steps;
	return v;
}

#define SCAN(nodes) scan_of(nodes, ARRAY_LEN(nodes), NULL)

static const char *item(const struct value *metrics, const char *map,
			const char *key)
{
	return value_get_str(value_get(metrics, map), key);
}

/* The form in which it goes to the daemon, and the bounds. */
static void check_form(const struct value *metrics)
{
	struct value *msg = value_struct_of(
		"type", value_stringz("guest"), "vm", value_stringz("v"),
		"domid", value_int(1), "metrics", value_ref(metrics), NULL);
	struct buf b = BUF_INIT;
	char reason[128] = "";

	if (!exec_message_check(EXEC_TO_DAEMON, msg, reason, sizeof reason))
		fail_msg("%s", reason);
	value_encode(&b, metrics);
	assert_true(b.len < GUEST_MAX_BYTES + 160 * 32);
	buf_deinit(&b);
	value_unref(msg);
}

/* ---- the scan ---- */

static void test_scan(void **state)
{
	static const struct node nodes[] = {
		{ "attr/PVAddons/MajorVersion", "9", 0 },
		{ "attr/PVAddons/MinorVersion", "3", 0 },
		{ "attr/eth2/ip", "192.0.2.2", 0 },
		{ "attr/eth2/ipv6/1/addr", "2001:db8::2", 0 },
		{ "attr/vif/0/ipv4/0", "192.0.2.1", 0 },
		{ "attr/vif/0/ipv4/1", "192.0.2.9", 0 },
		{ "attr/vif/0/ipv6/0", "2001:db8::1", 0 },
		{ "control/feature-suspend", "1", 0 },
		{ "control/shutdown", "", 0 },
		{ "data/os_name", "Caf\xc3\xa9 <OS> & \"more\"", 0 },
		{ "data/os_distro", "x", 0 },
		{ "data/host_name", "BOX", 0 },
		{ "data/meminfo_total", "1024", 0 },
		{ "data/cant_suspend_reason", "busy", 0 },
		{ "data/secret", "not asked for", 0 },
		{ "feature/hotplug/vbd", "0", 0 },
	};
	struct value *m = SCAN(nodes);

	assert_non_null(m);
	check_form(m);
	assert_string_equal(item(m, "PV_drivers_version", "major"), "9");
	assert_string_equal(item(m, "PV_drivers_version", "micro"), "-1");
	assert_string_equal(item(m, "os_version", "name"),
			    "Caf\xc3\xa9 <OS> & \"more\"");
	assert_string_equal(item(m, "netbios_name", "host_name"), "BOX");
	assert_string_equal(item(m, "memory", "total"), "1024");
	assert_string_equal(item(m, "networks", "0/ip"), "192.0.2.1");
	assert_string_equal(item(m, "networks", "0/ipv4/1"), "192.0.2.9");
	assert_string_equal(item(m, "networks", "0/ipv6/0"), "2001:db8::1");
	assert_string_equal(item(m, "networks", "2/ip"), "192.0.2.2");
	assert_string_equal(item(m, "networks", "2/ipv6/1"), "2001:db8::2");
	assert_int_equal(value_get(m, "networks")->n, 6);
	assert_string_equal(item(m, "other", "feature-suspend"), "1");
	assert_string_equal(item(m, "other", "data-cant-suspend-reason"),
			    "busy");
	assert_int_equal(value_get(m, "other")->n, 3);
	assert_string_equal(value_get_str(m, "can_use_hotplug_vbd"), "no");
	assert_string_equal(value_get_str(m, "can_use_hotplug_vif"),
			    "unspecified");
	assert_true(value_get(m, "PV_drivers_detected")->i);
	value_unref(m);
}

static void test_scan_nothing(void **state)
{
	static const struct node nodes[] = {
		{ "device/vif/0/state", "3", 0 },
		{ "data/unknown", "x", 0 },
	};
	static const struct node connected[] = {
		{ "device/vbd/51712/state", "4", 0 },
	};
	struct value *m;

	assert_null(SCAN(nodes));
	m = SCAN(connected);
	assert_true(value_get(m, "PV_drivers_detected")->i);
	assert_int_equal(value_get(m, "PV_drivers_version")->n, 0);
	check_form(m);
	value_unref(m);
}

/* Each of these is left out, and the others are not. */
static void test_scan_lies(void **state)
{
	static char longest[GUEST_MAX_VALUE + 2];
	struct node nodes[] = {
		{ "attr/PVAddons/MajorVersion", "9; DROP", 0 },
		{ "attr/vif/-1/ipv4/0", "192.0.2.1", 0 },
		{ "attr/vif/0/ipv4/0", "192.0.2.999", 0 },
		{ "attr/vif/0/ipv6/0", "192.0.2.1", 0 },
		{ "attr/vif/01/ipv4/0", "192.0.2.1", 0 },
		{ "control/\x01", "x", 0 },
		{ "control/bad", "\xff\xfe", 0 },
		{ "control/nul", "a\0b", 3 },
		{ "control/overlong", "\xc0\xaf", 0 },
		{ "control/surrogate", "\xed\xa0\x80", 0 },
		{ "data/meminfo_total", "-5", 0 },
		{ "data/os_name", longest, 0 },
		{ "data/os_distro", "fine", 0 },
		{ "feature/hotplug/vif", "yes", 0 },
	};
	struct value *m;

	memset(longest, 'a', GUEST_MAX_VALUE + 1);
	m = SCAN(nodes);
	check_form(m);
	assert_string_equal(item(m, "os_version", "distro"), "fine");
	assert_int_equal(value_get(m, "os_version")->n, 1);
	assert_int_equal(value_get(m, "PV_drivers_version")->n, 0);
	assert_int_equal(value_get(m, "networks")->n, 0);
	assert_int_equal(value_get(m, "memory")->n, 0);
	assert_int_equal(value_get(m, "other")->n, 0);
	assert_false(value_get(m, "PV_drivers_detected")->i);
	assert_string_equal(value_get_str(m, "can_use_hotplug_vif"),
			    "unspecified");
	value_unref(m);
	longest[GUEST_MAX_VALUE] = '\0'; /* as long as it may be */
	m = SCAN(nodes);
	assert_string_equal(item(m, "os_version", "name"), longest);
	value_unref(m);
}

#define FLOOD 8000

static void test_scan_flood(void **state)
{
	static char text[2049], paths[FLOOD][40];
	struct node *nodes = xcalloc(FLOOD + 1, sizeof *nodes);
	struct value *m;
	unsigned steps;

	for (size_t i = 0; i < sizeof text - 1; i++)
		text[i] = i % 2 ? '"' : '&';
	for (unsigned i = 0; i < FLOOD; i++) {
		snprintf(paths[i], sizeof paths[i], i % 4 ? "control/k%u" :
			 "attr/vif/%u/ipv4/0", i);
		/* Half of them are short enough to be told. */
		nodes[i] = (struct node){ paths[i], text, i % 2 ? 2048 : 500 };
	}
	nodes[FLOOD] = (struct node){ "data/os_name", "still seen", 0 };
	m = scan_of(nodes, FLOOD + 1, &steps);
	check_form(m);
	assert_true(steps > 64);
	assert_string_equal(item(m, "os_version", "name"), "still seen");
	assert_true(value_get(m, "other")->n > 0);
	assert_true(value_get(m, "other")->n <= GUEST_MAX_BYTES / 500);
	value_unref(m);
	free(nodes);
}

/* Whatever comes, in whatever order, the scan ends within its bounds. */
static uint64_t seed = 1;

static unsigned pick(unsigned n)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(seed >> 33) % n;
}

static size_t any_text(char *out, size_t max)
{
	static const char *const likely[] = { "0", "1", "4", "eth0", "ipv4",
					      "192.0.2.1", "::1", "vif",
					      "feature-x", "" };
	size_t n = pick((unsigned)max);

	if (pick(2)) {
		strcpy(out, likely[pick(ARRAY_LEN(likely))]);
		return strlen(out);
	}
	for (size_t i = 0; i < n; i++)
		out[i] = (char)(pick(8) ? 32 + pick(95) : pick(256));
	out[n] = '\0';
	return n;
}

static void answer_any(struct guest_scan *s, enum guest_ask ask)
{
	static char texts[300][300];
	const char *names[300];
	unsigned n = pick(300);

	for (unsigned i = 0; i < n; i++) {
		any_text(texts[i], pick(2) ? 8 : 299);
		names[i] = texts[i];
	}
	if (ask == GUEST_LIST)
		guest_scan_list(s, names, n);
	else
		guest_scan_read(s, pick(3) ? texts[0] : NULL,
				any_text(texts[0], 299));
}

static void test_scan_random(void **state)
{
	struct guest_scan *s = guest_scan_new();

	for (unsigned round = 0; round < 60; round++) {
		enum guest_ask ask;
		struct value *m;
		const char *path;
		unsigned steps = 0;

		guest_scan_begin(s);
		while ((ask = guest_scan_next(s, &path)) != GUEST_DONE) {
			assert_true(++steps <= GUEST_MAX_STEPS);
			answer_any(s, ask);
		}
		m = guest_scan_end(s);
		if (m)
			check_form(m);
		value_unref(m);
	}
	guest_scan_free(s);
}

/* ---- attention ---- */

static void test_pace(void **state)
{
	struct guest_pace p;
	int64_t now = 1000000, scans = 0, heard = 0;

	guest_pace_init(&p, now);
	assert_false(guest_pace_due(&p, now)); /* it may be booting */
	assert_true(guest_pace_due(&p, now + GUEST_GATHER_MS));
	assert_int_equal(guest_pace_wait(&p, now + GUEST_GATHER_MS), INT64_MAX);
	/* Events in a row are one look. */
	now += 10000;
	for (int i = 0; i < 20; i++)
		guest_pace_event(&p, now + i);
	assert_false(p.deaf);
	assert_int_equal(guest_pace_wait(&p, now), GUEST_GATHER_MS);
	assert_true(guest_pace_due(&p, now + GUEST_GATHER_MS));
	assert_false(guest_pace_due(&p, now + GUEST_GATHER_MS));

	/* A flood for a minute: a thousand events a millisecond. */
	now += 60000;
	for (int64_t end = now + 60000; now < end; now++) {
		for (int i = 0; i < 1000 && !p.deaf; i++, heard++)
			guest_pace_event(&p, now);
		if (guest_pace_due(&p, now)) {
			guest_pace_spend(&p, now, GUEST_MAX_STEPS);
			scans++;
		}
	}
	/* What 60 s fill, and what was there. */
	assert_true(heard + scans * GUEST_MAX_STEPS <=
		    60 * GUEST_TOKENS_PER_S + GUEST_TOKENS_MAX +
			    GUEST_MAX_STEPS);
	assert_true(scans >= 2); /* it is not forgotten either */
	now += 60000;
	assert_true(guest_pace_due(&p, now) || !p.dirty);
	assert_false(p.deaf);
}

static void test_pace_transaction(void **state)
{
	struct guest_pace p;
	int64_t now = 5000;
	unsigned n = 0;

	guest_pace_init(&p, now);
	while (p.tokens >= 0) {
		guest_pace_spend(&p, now, GUEST_COST_TRANSACTION);
		n++;
	}
	assert_int_equal(n, GUEST_TOKENS_MAX / GUEST_COST_TRANSACTION + 1);
	/* Clocks that stand still or jump do no harm. */
	guest_pace_event(&p, now - 1000);
	assert_true(p.deaf);
	assert_true(guest_pace_wait(&p, now) > 0);
	assert_true(guest_pace_due(&p, INT64_MAX / 4));
}

/* ---- what is kept for the daemon ---- */

static int64_t fake_now = 1000;
static unsigned woken;

static int64_t now_of(void *data)
{
	return fake_now;
}

static void on_wake(void *data)
{
	woken++;
}

static struct value *says(int i)
{
	return value_struct_of("i", value_int(i), NULL);
}

static int64_t next_i(struct guests *g)
{
	struct value *msg = guests_next(g);
	int64_t i = msg ? value_get_int(value_get(msg, "metrics"), "i", -1) :
			  -1;

	if (msg)
		guests_told(g, msg);
	value_unref(msg);
	return i;
}

static void test_guests(void **state)
{
	static const struct env_ops fake = { .mono_ms = now_of };
	struct guests *g = guests_new(on_wake, NULL);
	struct xen_domain dom = { .vm = "a", .domid = 1 };

	env_replace(&fake);
	guests_report(g, "a", 1, says(1));
	guests_report(g, "a", 1, says(1));
	assert_int_equal(woken, 1);
	assert_int_equal(next_i(g), 1);
	assert_int_equal(next_i(g), -1);
	assert_int_equal(guests_next_at(g), INT64_MAX);
	/* The same is no news, the newest of many is told, after the gap. */
	guests_report(g, "a", 1, says(1));
	assert_int_equal(next_i(g), -1);
	for (int i = 2; i < 100; i++)
		guests_report(g, "a", 1, says(i));
	assert_int_equal(next_i(g), -1);
	assert_int_equal(guests_next_at(g), fake_now + GUESTS_GAP_MS);
	guests_report(g, "b", 2, says(7)); /* nobody waits for another */
	assert_int_equal(next_i(g), 7);
	fake_now += GUESTS_GAP_MS;
	assert_int_equal(next_i(g), 99);
	/* A new domain of the VM says it anew; a new daemon hears all. */
	fake_now += GUESTS_GAP_MS;
	guests_report(g, "a", 3, says(99));
	assert_int_equal(next_i(g), 99);
	guests_again(g);
	assert_int_equal(next_i(g) + next_i(g), 99 + 7);
	/* What has gone is forgotten, after a while. */
	for (int i = 0; i < 3; i++)
		guests_keep(g, &dom, 1);
	guests_again(g);
	assert_int_equal(next_i(g), -1);
	for (unsigned i = 0; i < GUESTS_MAX + 10; i++) {
		char vm[UUID_LEN + 1];

		snprintf(vm, sizeof vm, "vm-%u", i);
		guests_report(g, vm, i, says(1));
	}
	guests_free(g);
	env_replace(NULL);
}

/* ---- what a host tells ---- */

static void test_host_facts(void **state)
{
	struct xen_host h = { .cpu_mhz = 1, .cpu_stepping = 9 };

	host_facts_cpuinfo(&h, "processor\t: 0\n"
			       "vendor_id\t: AuthenticAMD\n"
			       "cpu family\t: 25\n"
			       "model\t\t: 97\n"
			       "model name\t: Some CPU: 8 cores \xc3\xa9\n"
			       "stepping\t: unknown\n"
			       "cpu MHz\t\t: 2994.375\n"
			       "power management:\n"
			       "flags\t\t: fpu sse2\n"
			       "\n"
			       "processor\t: 1\n"
			       "vendor_id\t: another\n");
	assert_string_equal(h.cpu_vendor, "AuthenticAMD");
	assert_string_equal(h.cpu_model, "Some CPU: 8 cores \xc3\xa9");
	assert_string_equal(h.cpu_flags, "fpu sse2");
	assert_int_equal(h.cpu_family, 25);
	assert_int_equal(h.cpu_model_number, 97);
	assert_int_equal(h.cpu_stepping, 9);
	assert_int_equal(h.cpu_mhz, 2994);
	host_facts_cpuinfo(&h, "");
	host_facts_cpuinfo(&h, "flags");
	host_facts_cpuinfo(&h, "model name\t: no \xff text");
	assert_string_equal(h.cpu_model, "no ");
	assert_int_equal(host_facts_boot_time("cpu 1\nbtime 1700000000\nx 1\n"),
			 1700000000);
	assert_int_equal(host_facts_boot_time("btime 17"), 17);
	assert_int_equal(host_facts_boot_time("cpu 1\n"), 0);
	assert_int_equal(host_facts_boot_time("btime x"), 0);
	host_facts_learn(&h); /* of this machine */
	assert_true(h.boot_time > 1000000000);
	assert_int_equal(strlen(h.boot_id), UUID_LEN);
	assert_true(*h.kernel && *h.cpu_flags);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_scan_nothing),
		cmocka_unit_test(test_scan_lies),
		cmocka_unit_test(test_scan_flood),
		cmocka_unit_test(test_scan_random),
		cmocka_unit_test(test_pace),
		cmocka_unit_test(test_pace_transaction),
		cmocka_unit_test(test_guests),
		cmocka_unit_test(test_host_facts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
