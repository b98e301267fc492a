#include "xen/vncterm.h"

#include <string.h>
#include <vterm.h>

struct screen {
	struct vncterm *v;
	uint32_t *pixels;
	pthread_mutex_t lock; /* for all of it */
	VTerm *vt;
	VTermScreen *vs;
	VTermPos cursor;
	bool cursor_shown;
	struct rect changed; /* cells */
};

/* ---- drawing ---- */

static uint32_t rgb(struct screen *s, VTermColor c)
{
	vterm_screen_convert_color_to_rgb(s->vs, &c);
	return (uint32_t)c.rgb.red | (uint32_t)c.rgb.green << 8 |
	       (uint32_t)c.rgb.blue << 16;
}

static void draw_cell(struct screen *s, int row, int col)
{
	uint32_t *at = s->pixels + row * CELL_H * SCREEN_W + col * CELL_W;
	VTermScreenCell cell;
	VTermPos pos = { row, col };
	uint32_t fg, bg, c;
	bool cursor = s->cursor_shown && s->cursor.row == row &&
		      s->cursor.col == col;

	if (!vterm_screen_get_cell(s->vs, pos, &cell))
		return;
	fg = rgb(s, cell.fg);
	bg = rgb(s, cell.bg);
	if (!cell.attrs.reverse != !cursor) {
		uint32_t swap = fg;

		fg = bg;
		bg = swap;
	}
	/* The second half of a wide character is (uint32_t)-1. */
	c = cell.chars[0] == (uint32_t)-1 ? 0 : cell.chars[0];
	for (int y = 0; y < CELL_H; y++, at += SCREEN_W)
		for (int x = 0; x < CELL_W; x++)
			at[x] = font_pixel(c, x, y) ||
						(cell.attrs.underline &&
						 y == CELL_H - 1) ? fg : bg;
}

static void note_change(struct screen *s, int row0, int col0, int row1,
			int col1)
{
	struct rect *r = &s->changed;

	if (r->x0 >= r->x1) {
		*r = (struct rect){ col0, row0, col1, row1 };
		return;
	}
	r->x0 = MIN(r->x0, col0);
	r->y0 = MIN(r->y0, row0);
	r->x1 = MAX(r->x1, col1);
	r->y1 = MAX(r->y1, row1);
}

static int on_damage(VTermRect r, void *user)
{
	note_change(user, r.start_row, r.start_col, r.end_row, r.end_col);
	return 1;
}

static int on_cursor(VTermPos pos, VTermPos old, int visible, void *user)
{
	struct screen *s = user;

	s->cursor = pos;
	note_change(s, old.row, old.col, old.row + 1, old.col + 1);
	note_change(s, pos.row, pos.col, pos.row + 1, pos.col + 1);
	return 1;
}

static int on_property(VTermProp prop, VTermValue *val, void *user)
{
	struct screen *s = user;

	if (prop == VTERM_PROP_CURSORVISIBLE) {
		s->cursor_shown = val->boolean;
		note_change(s, s->cursor.row, s->cursor.col, s->cursor.row + 1,
			    s->cursor.col + 1);
	}
	return 1;
}

static const VTermScreenCallbacks callbacks = {
	.damage = on_damage,
	.movecursor = on_cursor,
	.settermprop = on_property,
};

static struct rect draw_changes(struct screen *s)
{
	struct rect r = s->changed;

	r.x1 = MIN(r.x1, SCREEN_COLS);
	r.y1 = MIN(r.y1, SCREEN_ROWS);
	for (int row = r.y0; row < r.y1; row++)
		for (int col = r.x0; col < r.x1; col++)
			draw_cell(s, row, col);
	memset(&s->changed, 0, sizeof(s->changed));
	return (struct rect){ r.x0 * CELL_W, r.y0 * CELL_H, r.x1 * CELL_W,
			      r.y1 * CELL_H };
}

struct rect screen_write(struct screen *s, const char *p, size_t n)
{
	struct rect r;

	pthread_mutex_lock(&s->lock);
	vterm_input_write(s->vt, p, n);
	vterm_screen_flush_damage(s->vs);
	r = draw_changes(s);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- keys ---- */

/* X keysyms to keys of the terminal. */
static const struct {
	uint32_t keysym;
	VTermKey key;
} keys[] = {
	{ 0xff08, VTERM_KEY_BACKSPACE }, { 0xff09, VTERM_KEY_TAB },
	{ 0xff0a, VTERM_KEY_ENTER },     { 0xff0d, VTERM_KEY_ENTER },
	{ 0xff1b, VTERM_KEY_ESCAPE },    { 0xff50, VTERM_KEY_HOME },
	{ 0xff51, VTERM_KEY_LEFT },      { 0xff52, VTERM_KEY_UP },
	{ 0xff53, VTERM_KEY_RIGHT },     { 0xff54, VTERM_KEY_DOWN },
	{ 0xff55, VTERM_KEY_PAGEUP },    { 0xff56, VTERM_KEY_PAGEDOWN },
	{ 0xff57, VTERM_KEY_END },       { 0xff63, VTERM_KEY_INS },
	{ 0xff8d, VTERM_KEY_ENTER },     { 0xff95, VTERM_KEY_HOME },
	{ 0xff96, VTERM_KEY_LEFT },      { 0xff97, VTERM_KEY_UP },
	{ 0xff98, VTERM_KEY_RIGHT },     { 0xff99, VTERM_KEY_DOWN },
	{ 0xff9a, VTERM_KEY_PAGEUP },    { 0xff9b, VTERM_KEY_PAGEDOWN },
	{ 0xff9c, VTERM_KEY_END },       { 0xff9e, VTERM_KEY_INS },
	{ 0xff9f, VTERM_KEY_DEL },       { 0xffff, VTERM_KEY_DEL },
};

static VTermKey key_of(uint32_t keysym)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (keys[i].keysym == keysym)
			return keys[i].key;
	if (keysym >= 0xffbe && keysym <= 0xffc9) /* F1..F12 */
		return (VTermKey)VTERM_KEY_FUNCTION(keysym - 0xffbd);
	return VTERM_KEY_NONE;
}

/* 0: none. */
static uint32_t char_of(uint32_t keysym)
{
	if ((keysym >= 0x20 && keysym < 0x7f) ||
	    (keysym >= 0xa0 && keysym <= 0xff))
		return keysym;
	if (keysym >= 0xffaa && keysym <= 0xffb9) /* number pad */
		return keysym - 0xff80;
	if (keysym >= 0x010000a0 && keysym <= 0x0110ffff)
		return keysym - 0x01000000;
	return 0;
}

void screen_key(struct screen *s, uint32_t keysym, unsigned modifiers)
{
	VTermKey key = key_of(keysym);
	uint32_t c = char_of(keysym);

	pthread_mutex_lock(&s->lock);
	if (key != VTERM_KEY_NONE)
		vterm_keyboard_key(s->vt, key, (VTermModifier)modifiers);
	else if (c)
		/* The keysym is what shift made of the key. */
		vterm_keyboard_unichar(s->vt, c, (VTermModifier)(
				       modifiers & ~(unsigned)KEY_SHIFT));
	pthread_mutex_unlock(&s->lock);
}

static void on_output(const char *p, size_t n, void *user)
{
	struct screen *s = user;

	vt_type(s->v, p, n);
}

/* ---- the screen ---- */

struct screen *screen_new(struct vncterm *v, uint32_t *pixels)
{
	struct screen *s = xcalloc(1, sizeof(*s));

	s->v = v;
	s->pixels = pixels;
	s->cursor_shown = true;
	pthread_mutex_init(&s->lock, NULL);
	s->vt = vterm_new(SCREEN_ROWS, SCREEN_COLS);
	vterm_set_utf8(s->vt, 1);
	vterm_output_set_callback(s->vt, on_output, s);
	s->vs = vterm_obtain_screen(s->vt);
	vterm_screen_set_callbacks(s->vs, &callbacks, s);
	vterm_screen_set_damage_merge(s->vs, VTERM_DAMAGE_SCROLL);
	vterm_screen_enable_altscreen(s->vs, 1);
	vterm_screen_reset(s->vs, 1);
	note_change(s, 0, 0, SCREEN_ROWS, SCREEN_COLS);
	draw_changes(s);
	return s;
}
