/* A viewer for the tests: libvncclient against a Unix socket, told what to do by
 * lines on its standard input:
 *
 *   type TEXT     presses the keys
 *   key KEYSYM    presses one, by its number
 *   wait TEXT     until the screen shows it; answers "ok", or "no" after 20 s
 *   look          takes in what comes within 0.2 s; answers "ok"
 *   text          answers with the lines of the screen, read from its pixels
 *   dump FILE     writes the screen as PPM; answers "ok"
 *   end
 *
 * usage: rfb_view SOCKET [any]. Prints "ready RFB 3.x WIDTH HEIGHT NAME" first.
 * With "any" the screen need not be a text console's: then it cannot be read.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <rfb/rfbclient.h>

#include "xen/vncterm.h"

#define PATIENCE_S 20

static void quiet(const char *format, ...)
{
}

static uint32_t pixel(const rfbClient *c, int x, int y)
{
	return ((const uint32_t *)(const void *)c->frameBuffer)
		[y * c->width + x] & 0xffffff;
}

/* Is the cell this character, in any two colours? */
static bool cell_is(const rfbClient *c, int row, int col, uint32_t ch)
{
	uint32_t colour[2] = { 0, 0 };
	bool known[2] = { false, false };

	for (int y = 0; y < CELL_H; y++)
		for (int x = 0; x < CELL_W; x++) {
			uint32_t p = pixel(c, col * CELL_W + x,
					   row * CELL_H + y);
			bool lit = font_pixel(ch, x, y);

			if (known[lit] && colour[lit] != p)
				return false;
			known[lit] = true;
			colour[lit] = p;
		}
	return !known[1] || colour[0] != colour[1];
}

static char read_cell(const rfbClient *c, int row, int col)
{
	for (uint32_t ch = 0x20; ch < 0x7f; ch++)
		if (cell_is(c, row, col, ch))
			return (char)ch;
	return '~';
}

static void read_screen(const rfbClient *c, char out[SCREEN_ROWS][SCREEN_COLS + 1])
{
	for (int row = 0; row < SCREEN_ROWS; row++) {
		for (int col = 0; col < SCREEN_COLS; col++)
			out[row][col] = read_cell(c, row, col);
		out[row][SCREEN_COLS] = '\0';
	}
}

static bool shows(const rfbClient *c, const char *text)
{
	char screen[SCREEN_ROWS][SCREEN_COLS + 1];

	read_screen(c, screen);
	for (int row = 0; row < SCREEN_ROWS; row++)
		if (strstr(screen[row], text))
			return true;
	return false;
}

/* False: the server has gone. */
static bool look(rfbClient *c, unsigned ms)
{
	int n = WaitForMessage(c, ms * 1000);

	return n == 0 || (n > 0 && HandleRFBServerMessage(c));
}

static bool wait_for(rfbClient *c, const char *text)
{
	time_t end = time(NULL) + PATIENCE_S;

	while (!shows(c, text))
		if (time(NULL) > end || !look(c, 100))
			return false;
	return true;
}

static void press(rfbClient *c, uint32_t keysym)
{
	SendKeyEvent(c, keysym, TRUE);
	SendKeyEvent(c, keysym, FALSE);
}

static void type(rfbClient *c, const char *text)
{
	for (; *text; text++)
		press(c, (uint8_t)*text);
}

static void print_text(rfbClient *c)
{
	char screen[SCREEN_ROWS][SCREEN_COLS + 1];

	read_screen(c, screen);
	for (int row = 0; row < SCREEN_ROWS; row++)
		puts(screen[row]);
}

static bool dump(rfbClient *c, const char *path)
{
	FILE *f = fopen(path, "wb");

	if (!f)
		return false;
	fprintf(f, "P6\n%d %d\n255\n", c->width, c->height);
	for (int y = 0; y < c->height; y++)
		for (int x = 0; x < c->width; x++) {
			uint32_t p = pixel(c, x, y);

			fputc((int)(p & 0xff), f);
			fputc((int)(p >> 8 & 0xff), f);
			fputc((int)(p >> 16 & 0xff), f);
		}
	return fclose(f) == 0;
}

/* False: the end. */
static bool obey(rfbClient *c, char *line)
{
	char *arg = strchr(line, ' ');

	if (arg)
		*arg++ = '\0';
	if (!strcmp(line, "type") && arg)
		type(c, arg);
	else if (!strcmp(line, "key") && arg)
		press(c, (uint32_t)strtoul(arg, NULL, 0));
	else if (!strcmp(line, "wait") && arg)
		puts(wait_for(c, arg) ? "ok" : "no");
	else if (!strcmp(line, "look"))
		puts(look(c, 200) ? "ok" : "no");
	else if (!strcmp(line, "text"))
		print_text(c);
	else if (!strcmp(line, "dump") && arg)
		puts(dump(c, arg) ? "ok" : "no");
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	rfbClient *c = rfbGetClient(8, 3, 4);
	char line[1024];

	bool any = argc == 3 && !strcmp(argv[2], "any");

	if (argc != 2 && !any)
		return 2;
	rfbClientLog = rfbClientErr = quiet;
	setvbuf(stdout, NULL, _IOLBF, 0);
	c->serverHost = strdup(argv[1]);
	c->canHandleNewFBSize = FALSE;
	if (!rfbInitClient(c, NULL, NULL)) {
		puts("no connection");
		return 1;
	}
	if (!any && (c->width != SCREEN_W || c->height != SCREEN_H)) {
		puts("another size");
		return 1;
	}
	printf("ready RFB %d.%d %d %d %s\n", c->major, c->minor, c->width,
	       c->height, c->desktopName);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (!obey(c, line))
			break;
	}
	rfbClientCleanup(c);
	return 0;
}
