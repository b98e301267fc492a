/* A VM's rows as the executor's configuration: golden files that test_xl_config
 * takes as its input, so that the way from the rows to libxl is whole. With
 * XL_CONFIG_WRITE=1 they are written anew. */
#include "tests/unit/vm_world.h"

#include <json-c/json.h>

#include "rpc/jsonrpc.h"
#include "xen/files.h"

#define VM1 "11111111-1111-4111-8111-111111111111"

static char vm[REF_LEN + 1], files[REF_LEN + 1];

/* ---- rows ---- */

static void take(char out[REF_LEN + 1], struct value *ref)
{
	strcpy(out, value_str(ref));
	value_unref(ref);
}

static void make_files(void)
{
	take(files, ok("SR.create", S(w.h[0].ref),
		       value_map_of("location", S("/srv/images"), NULL), I(0),
		       S("images"), S(""), S("file"), S("user"), B(false),
		       value_map_empty()));
}

static void introduce(char out[REF_LEN + 1], const char *name)
{
	take(out, ok("VDI.introduce", S(""), S(""), S(""), S(files), S("user"),
		     B(false), B(false), value_map_empty(), S(name)));
}

/* name NULL: an empty drive. */
static void drive(const char *device, const char *name, const char *type,
		  bool bootable)
{
	char vdi[REF_LEN + 1] = REF_NULL;
	bool cd = !strcmp(type, "CD");

	if (name)
		introduce(vdi, name);
	do_ok("VBD.create",
	      value_struct_of("VM", S(vm), "VDI", S(vdi), "userdevice",
			      S(device), "bootable", B(bootable), "mode",
			      S(cd ? "RO" : "RW"), "type", S(type), "empty",
			      B(!name), "other_config", value_map_empty(),
			      "qos_algorithm_type", S(""),
			      "qos_algorithm_params", value_map_empty(), NULL));
}

static void card(const char *device, const char *mac, const char *mtu)
{
	struct record *n = find_by_name(CLASS_network,
					"Pool-wide network associated with "
					"xenbr0");
	struct value *other = mtu ? value_map_of("mtu", S(mtu), NULL) :
				    value_map_empty();

	do_ok("VIF.create",
	      value_struct_of("VM", S(vm), "network", value_ref(n->ref),
			      "device", S(device), "MAC", S(mac), "MTU", I(0),
			      "other_config", other, "qos_algorithm_type",
			      S(""), "qos_algorithm_params",
			      value_map_empty(), NULL));
}

/* ---- what the executor was sent ---- */

/* The `config` of a start, which is carried out then. */
static struct value *config_sent(void)
{
	struct value *config;
	struct reply r;

	w.hold = "start";
	call_at(&w.h[0], &r, "VM.start", S(vm), B(false), B(false), NULL);
	assert_non_null(w.held);
	config = value_ref(value_get(value_get(w.held, "params"), "config"));
	release_held();
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
	return config;
}

static char *pretty(const struct value *config)
{
	_cleanup_(buf_deinit) struct buf b = BUF_INIT;
	struct json_object *o;
	char *text;

	jsonrpc_write_value(&b, config);
	o = json_tokener_parse(buf_cstr(&b));
	assert_non_null(o);
	/* Another one in each run. */
	json_object_object_add(o, "uuid", json_object_new_string(VM1));
	json_object_object_del(o, "other_config");
	text = xstrdup(json_object_to_json_string_ext(
		o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(o);
	return text;
}

static void check_golden(const char *name)
{
	_cleanup_(value_unrefp) struct value *config = config_sent();
	const char *top = getenv("XENPOOL_TOP");
	_cleanup_(freep) char *path = xasprintf(
		"%s/tests/unit/xl_config/pool-%s.in.json", top ? top : ".",
		name);
	_cleanup_(freep) char *text = pretty(config);
	_cleanup_(buf_deinit) struct buf want = BUF_INIT;

	if (getenv("XL_CONFIG_WRITE"))
		assert_int_equal(file_replace(path, text, strlen(text)), 0);
	assert_int_equal(file_read(path, 65536, &want), 0);
	assert_string_equal(text, buf_cstr(&want));
}

/* ---- tests ---- */

static void test_pvh(void **state)
{
	make_files();
	make_vm(vm, "pvh");
	do_ok("VM.set_PV_kernel", S(vm), S("/boot/guest"));
	do_ok("VM.set_PV_args", S(vm), S("console=hvc0"));
	do_ok("VM.set_PV_bootloader", S(vm), S(""));
	drive("1", "data.qcow2", "Disk", false);
	drive("0", "root.img", "Disk", true);
	card("1", "00:16:3e:00:00:0B", "9000");
	card("0", "00:16:3e:00:00:0a", NULL);
	check_golden("pvh");
}

/* The bootloader's disk comes first, whatever its number. */
static void test_pv(void **state)
{
	make_files();
	make_vm(vm, "pv");
	do_ok("VM.set_domain_type", S(vm), S("pv"));
	do_ok("VM.set_PV_bootloader", S(vm), S("pygrub"));
	drive("xvda", "data.vhd", "Disk", false);
	drive("hdc", "root.img", "Disk", true);
	drive("3", NULL, "CD", false);
	card("0", "00:16:3e:00:00:0a", "nonsense");
	check_golden("pv");
}

static void test_hvm(void **state)
{
	make_files();
	make_vm(vm, "hvm");
	do_ok("VM.set_HVM_boot_policy", S(vm), S("BIOS order"));
	do_ok("VM.set_HVM_boot_params", S(vm),
	      value_map_of("order", S("DCN"), "firmware", S("bios"), NULL));
	do_ok("VM.set_platform", S(vm),
	      value_map_of("acpi", S("true"), "apic", S("true"), "pae",
			   S("true"), "vga", S("std"), "videoram", S("8"),
			   NULL));
	do_ok("VM.set_PV_kernel", S(vm), S("/boot/not-for-such"));
	drive("0", "c.img", "Disk", true);
	drive("3", "setup.iso", "CD", true);
	drive("2", NULL, "CD", false);
	card("0", "00:16:3e:00:00:0a", NULL);
	check_golden("hvm");
}

/* Nothing is invented for disks without contents, nor for what was made after
 * the boot and never plugged. */
static void test_what_is_left_out(void **state)
{
	struct record *pool = store_first(w.store, CLASS_pool);
	_cleanup_(value_unrefp) struct value *config = NULL;
	char vdi[REF_LEN + 1];
	struct reply r;

	make_files();
	make_vm(vm, "plain");
	take(vdi, ok("VDI.create",
		     value_struct_of("SR", S(record_str(pool,
							F_pool_default_SR)),
				     "virtual_size", I(MIB), "type", S("user"),
				     "sharable", B(false), "read_only",
				     B(false), "other_config",
				     value_map_empty(), NULL)));
	do_ok("VBD.create",
	      value_struct_of("VM", S(vm), "VDI", S(vdi), "userdevice", S("0"),
			      "bootable", B(true), "mode", S("RW"), "type",
			      S("Disk"), "empty", B(false), "other_config",
			      value_map_empty(), "qos_algorithm_type", S(""),
			      "qos_algorithm_params", value_map_empty(), NULL));
	config = config_sent();
	assert_int_equal(value_get(config, "disks")->n, 0);
	drive("1", "late.img", "Disk", false);
	w.hold = "hard_reboot";
	call_at(&w.h[0], &r, "VM.hard_reboot", S(vm), NULL);
	assert_non_null(w.held);
	assert_int_equal(value_get(value_get(value_get(w.held, "params"),
					     "config"), "disks")->n, 0);
	release_held();
	world_run();
	assert_non_null(r.result);
	reply_clear(&r);
	do_ok("VM.hard_shutdown", S(vm));
	value_unref(config);
	config = config_sent();
	assert_int_equal(value_get(config, "disks")->n, 1);
}

/* ---- files ---- */

static void introduce_fails(const char *name, const char *code, const char *a,
			    const char *b)
{
	fails(("VDI.introduce", S(""), S(""), S(""), S(files), S("user"),
	       B(false), B(false), value_map_empty(), S(name)), code, a, b);
}

static void test_files(void **state)
{
	static const char *const bad[] = { "", ".", "..", ".hidden", "a/b",
					   "../x", "/etc/shadow" };
	static const char *const nowhere[] = { "", "relative", "/", "/a/../b",
					       "/a//b", "/a/" };
	char vdi[REF_LEN + 1];

	for (size_t i = 0; i < ARRAY_LEN(nowhere); i++)
		fails(("SR.create", S(w.h[0].ref),
		       value_map_of("location", S(nowhere[i]), NULL), I(0),
		       S("images"), S(""), S("file"), S("user"), B(false),
		       value_map_empty()),
		      "INVALID_VALUE", "device_config:location", nowhere[i]);
	make_files();
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		introduce_fails(bad[i], "INVALID_VALUE", "location", bad[i]);
	introduce(vdi, "disk.img");
	assert_text(vdi, F_VDI_name_label, "disk.img");
	assert_text(vdi, F_VDI_location, "disk.img");
	introduce_fails("disk.img", "LOCATION_NOT_UNIQUE", files, "disk.img");
	/* Nothing is claimed that nobody does. */
	fails(("VDI.destroy", S(vdi)), "SR_OPERATION_NOT_SUPPORTED", files);
	fails(("VDI.resize", S(vdi), I(1)), "SR_OPERATION_NOT_SUPPORTED",
	      files);
	do_ok("VDI.forget", S(vdi));
	introduce(vdi, "disk.img");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_pvh, world_of_one,
						world_end),
		cmocka_unit_test_setup_teardown(test_pv, world_of_one,
						world_end),
		cmocka_unit_test_setup_teardown(test_hvm, world_of_one,
						world_end),
		cmocka_unit_test_setup_teardown(test_what_is_left_out,
						world_of_one, world_end),
		cmocka_unit_test_setup_teardown(test_files, world_of_one,
						world_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
