/* A VM's configuration as libxl's: golden files in tests/unit/xl_config, and
 * what is refused. With XL_CONFIG_WRITE=1 the golden files are written anew. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/xen/json_value.h"
#include "xen/files.h"
#include "xen/xl_config.h"

#define VM1 "11111111-1111-4111-8111-111111111111"

static struct value *parse_json(const char *text)
{
	struct json_object *o = json_tokener_parse(text);
	struct value *v = o ? of_json(o, "") : NULL;

	assert_non_null(v);
	json_object_put(o);
	return v;
}

/* As the executor's option has it. */
static bool dm_root;

/* The caller's; NULL and a reason when it is refused. */
static char *convert(const char *text, char *reason, size_t size)
{
	_cleanup_(value_unrefp) struct value *v = parse_json(text);
	_cleanup_(domain_config_freep) struct domain_config *c =
		domain_config_parse(v, reason, size);
	libxl_domain_config d;
	char *json = NULL;

	if (!c)
		return NULL;
	if (xl_config_make(c, dm_root, &d, reason, size)) {
		json = libxl_domain_config_to_json(NULL, &d);
		assert_non_null(json);
	}
	libxl_domain_config_dispose(&d);
	return json;
}

static char *golden_path(const char *name)
{
	const char *top = getenv("XENPOOL_TOP");

	return xasprintf("%s/tests/unit/xl_config/%s.json", top ? top : ".",
			 name);
}

static void check_golden(const char *name)
{
	_cleanup_(freep) char *in_name = xasprintf("%s.in", name);
	_cleanup_(freep) char *in = golden_path(in_name);
	_cleanup_(freep) char *out = golden_path(name);
	_cleanup_(buf_deinit) struct buf text = BUF_INIT, want = BUF_INIT;
	_cleanup_(freep) char *json = NULL;
	char reason[160] = "";

	assert_int_equal(file_read(in, 65536, &text), 0);
	json = convert(buf_cstr(&text), reason, sizeof(reason));
	assert_string_equal(reason, "");
	if (getenv("XL_CONFIG_WRITE"))
		assert_int_equal(file_replace(out, json, strlen(json)), 0);
	assert_int_equal(file_read(out, 65536, &want), 0);
	assert_string_equal(json, buf_cstr(&want));
}

static void test_golden(void **state)
{
	check_golden("pvh");
	check_golden("pv");
	check_golden("hvm");
}

/* What the pool makes of rows: see test_job_config. */
static void test_golden_of_pool(void **state)
{
	check_golden("pool-pvh");
	check_golden("pool-pv");
	check_golden("pool-hvm");
}

/* A configuration that is good but for what is said of it. */
static char *with(const char *type, const char *more)
{
	return xasprintf("{\"uuid\": \"" VM1 "\", \"domain_type\": \"%s\", "
			 "\"memory_static_max\": 134217728, \"vcpus\": 1, %s}",
			 type, more);
}

static void refused(const char *type, const char *more, const char *why)
{
	_cleanup_(freep) char *text = with(type, more);
	char reason[160] = "";
	_cleanup_(freep) char *json = convert(text, reason, sizeof(reason));

	assert_null(json);
	if (!strstr(reason, why))
		fail_msg("%s: \"%s\" instead of \"%s\"", more, reason, why);
}

static void taken(const char *type, const char *more)
{
	_cleanup_(freep) char *text = with(type, more);
	char reason[160] = "";
	_cleanup_(freep) char *json = convert(text, reason, sizeof(reason));

	assert_string_equal(reason, "");
	assert_non_null(json);
}

#define PLATFORM(key, value) "\"platform\": {\"" key "\": \"" value "\"}"

static void test_platform_is_no_weapon(void **state)
{
	static const char *const bad[] = {
		PLATFORM("hvm_serial", "file:/etc/passwd"),
		PLATFORM("hvm_serial", "pipe:/run/x"),
		PLATFORM("hvm_serial", "tcp:0.0.0.0:1,server"),
		PLATFORM("hvm_serial", "udp:1.2.3.4:5"),
		PLATFORM("hvm_serial", "unix:/run/x,server"),
		PLATFORM("hvm_serial", "/dev/ttyS0"),
		PLATFORM("hvm_serial", "pty,path=/x"),
		PLATFORM("hvm_serial", "stdio"),
		PLATFORM("usb", "host:1d6b:2"),
		PLATFORM("usb_tablet", "disk:/etc/shadow"),
		PLATFORM("mmio_size_mib", "1"),
		PLATFORM("parallel", "/dev/parport0"),
		PLATFORM("device-model", "/tmp/evil"),
		PLATFORM("device-model", "../evil"),
		PLATFORM("videoram", "99999"),
		PLATFORM("vga", "std,romfile=/etc/shadow"),
		PLATFORM("timeoffset", "1,base=x"),
		PLATFORM("acpi", "perhaps"),
		PLATFORM("generation-id", "x"),
		PLATFORM("tsc_mode", "7"),
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refused("hvm", bad[i], "platform:");
	taken("hvm", PLATFORM("hvm_serial", "none"));
	/* Of keys that are not known nothing gets to Xen: see the golden file
	 * with its "unknown-key". */
	taken("hvm", PLATFORM("whatever", "/bin/sh"));
}

/* A word that would be a program, a file or a device if it got to libxl. */
#define EVIL "/evil-thing"

static void test_unknown_keys_go_nowhere(void **state)
{
	static const char *const keys[] = {
		"\"platform\": {\"device_model_override\": \"" EVIL "\", "
		"\"device-model-args\": \"" EVIL "\", "
		"\"firmware_override\": \"" EVIL "\", "
		"\"kernel\": \"" EVIL "\", \"nic_type\": \"" EVIL "\", "
		"\"serial\": \"" EVIL "\", \"usbdevice\": \"" EVIL "\", "
		"\"secureboot\": \"" EVIL "\", \"bios\": \"" EVIL "\"}",
		"\"other_config\": {\"hvm_serial\": \"" EVIL "\", "
		"\"pci\": \"0/0000:00:00.0" EVIL "\"}",
		"\"hvm_boot\": {\"device_model\": \"" EVIL "\"}",
		/* Of an emulated machine's: it boots from its disks. */
		"\"kernel\": \"" EVIL "\", \"ramdisk\": \"" EVIL "\", "
		"\"bootloader\": \"" EVIL "\", \"args\": \"" EVIL "\"",
	};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		_cleanup_(freep) char *text = with("hvm", keys[i]);
		char reason[160] = "";
		_cleanup_(freep) char *json = convert(text, reason,
						      sizeof(reason));

		assert_string_equal(reason, "");
		assert_non_null(json);
		assert_null(strstr(json, EVIL));
	}
}

/* Where the words above do get through, so that looking for them finds them. */
static void test_kernels_go_somewhere(void **state)
{
	_cleanup_(freep) char *text = with("pvh", "\"kernel\": \"" EVIL "\"");
	char reason[160] = "";
	_cleanup_(freep) char *json = convert(text, reason, sizeof(reason));

	assert_non_null(json);
	assert_non_null(strstr(json, EVIL));
}

static void test_boot(void **state)
{
	refused("pvh", "\"args\": \"x\"", "kernel");
	refused("pv", "\"bootloader\": \"/bin/sh\"", "bootloader");
	refused("pv", "\"bootloader\": \"pygrub --x\"", "bootloader");
	refused("hvm", "\"hvm_boot\": {\"order\": \"cx\"}", "order");
	refused("hvm", "\"hvm_boot\": {\"firmware\": \"/x\"}", "firmware");
	taken("pv", "\"bootloader\": \"pygrub\"");
}

static void test_xenstore_keys(void **state)
{
	refused("hvm", "\"xenstore\": {\"../0/x\": \"\"}", "xenstore");
	refused("hvm", "\"xenstore\": {\"vm-data/../x\": \"\"}", "xenstore");
	refused("hvm", "\"xenstore\": {\"vm-data//x\": \"\"}", "xenstore");
	refused("hvm", "\"xenstore\": {\"vm-data/x/\": \"\"}", "xenstore");
	refused("hvm", "\"xenstore\": {\"device/x\": \"\"}", "xenstore");
	taken("hvm", "\"xenstore\": {\"vm-data/a-b_c@d/e\": \"any\"}");
}

#define DISK(x) "\"disks\": [{\"number\": 0, " x "}]"
#define VIF(mac, bridge)                                                   \
	"\"vifs\": [{\"number\": 0, \"mac\": \"" mac "\", \"bridge\": \"" \
	bridge "\"}]"

static void test_devices(void **state)
{
	refused("hvm", DISK("\"path\": \"relative\""), "path");
	refused("hvm", DISK("\"path\": \"/dev/../etc/shadow\""), "path");
	refused("hvm", DISK("\"format\": \"raw\""), "path: missing");
	refused("hvm", DISK("\"path\": \"/a\", \"format\": \"iscsi\""),
		"format");
	refused("hvm", DISK("\"path\": \"/a\", \"cdrom\": true"), "cdrom");
	refused("hvm", "\"disks\": [{\"number\": 1, \"path\": \"/a\"},"
		       "{\"number\": 1, \"path\": \"/b\"}]", "twice");
	refused("hvm", VIF("00:16:3e:00:00:0", "xenbr0"), "mac");
	refused("hvm", VIF("01:16:3e:00:00:01", "xenbr0"), "mac");
	refused("hvm", VIF("00:16:3e:00:00:01", "x; reboot"), "bridge");
	refused("hvm", VIF("00:16:3e:00:00:01", "a-very-long-bridge"),
		"bridge");
	refused("hvm", VIF("00:16:3e:00:00:01", "../x"), "bridge");
	taken("hvm", VIF("00:16:3e:00:00:01", "xenbr0"));
	taken("hvm", DISK("\"path\": \"\", \"cdrom\": true, "
			  "\"readonly\": true"));
}

/* What needs QEMU to write files only QEMU as root gets. */
static void test_model_without_rights(void **state)
{
	static const char qcow2[] =
		DISK("\"path\": \"/a\", \"format\": \"qcow2\"");
	static const char readonly[] =
		DISK("\"path\": \"/a\", \"readonly\": true");
	_cleanup_(freep) char *text = with("hvm", "\"vcpus_max\": 1");
	_cleanup_(freep) char *json = NULL;
	char reason[160] = "";

	refused("hvm", qcow2, "root's rights");
	refused("hvm", readonly, "read-only");
	taken("pvh", "\"kernel\": \"/k\", " DISK("\"path\": \"/a\", "
						  "\"format\": \"qcow2\""));
	dm_root = true;
	taken("hvm", qcow2);
	refused("hvm", readonly, "read-only");
	json = convert(text, reason, sizeof(reason));
	dm_root = false;
	assert_non_null(json);
	assert_non_null(strstr(json, "\"dm_restrict\": \"False\""));
}

static void test_memory_in_whole_mib(void **state)
{
	char reason[160] = "";
	_cleanup_(freep) char *json = convert(
		"{\"uuid\": \"" VM1 "\", \"domain_type\": \"pvh\", "
		"\"memory_static_max\": 134221824, "
		"\"memory_target\": 134221824, \"vcpus\": 1, "
		"\"kernel\": \"/boot/guest/vmlinux\"}",
		reason, sizeof(reason));

	assert_non_null(json);
	assert_non_null(strstr(json, "\"max_memkb\": 131072,"));
	assert_non_null(strstr(json, "\"target_memkb\": 131072,"));
}

static void test_disk_names(void **state)
{
	char name[16];

	xl_config_vdev(DOMAIN_PV, 0, name);
	assert_string_equal(name, "xvda");
	xl_config_vdev(DOMAIN_HVM, 3, name);
	assert_string_equal(name, "hdd");
	xl_config_vdev(DOMAIN_HVM, 4, name);
	assert_string_equal(name, "xvde");
	xl_config_vdev(DOMAIN_PVH, 254, name);
	assert_string_equal(name, "xvdiu");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_golden_of_pool),
		cmocka_unit_test(test_platform_is_no_weapon),
		cmocka_unit_test(test_unknown_keys_go_nowhere),
		cmocka_unit_test(test_kernels_go_somewhere),
		cmocka_unit_test(test_boot),
		cmocka_unit_test(test_xenstore_keys),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_model_without_rights),
		cmocka_unit_test(test_memory_in_whole_mib),
		cmocka_unit_test(test_disk_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
