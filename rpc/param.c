#include "rpc/param.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

/* Percent-decodes n bytes. */
static bool decode(const char *p, size_t n, char *out, size_t size)
{
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)p[i];

		if (c == '%') {
			if (n - i < 3 || !hex_decode(p + i + 1, 2, &c))
				return false;
			i += 2;
		}
		if (len + 1 >= size)
			return false;
		out[len++] = (char)c;
	}
	out[len] = '\0';
	return text_valid(out, len);
}

/* Looks for name=value in items that sep divides. */
static bool find(const char *p, size_t n, char sep, const char *name, char *out,
		 size_t size)
{
	size_t len = strlen(name);

	while (n > 0) {
		const char *end = memchr(p, sep, n);
		size_t item = end ? (size_t)(end - p) : n, skip = 0;

		while (skip < item && p[skip] == ' ')
			skip++;
		if (item - skip > len && p[skip + len] == '=' &&
		    memcmp(p + skip, name, len) == 0)
			return decode(p + skip + len + 1,
				      item - skip - len - 1, out, size);
		item = MIN(item + 1, n);
		p += item;
		n -= item;
	}
	return false;
}

bool param_query(const struct http_request *r, const char *head,
		 const char *name, char *out, size_t size)
{
	if (find(head + r->query.at, r->query.n, '&', name, out, size))
		return true;
	out[0] = '\0';
	return false;
}

bool param_cookie_or_query(const struct http_request *r, const char *head,
			   const char *name, char *out, size_t size)
{
	const char *p = head + r->cookie.at;
	size_t n = r->cookie.n;

	return find(p, n, memchr(p, ';', n) ? ';' : '&', name, out, size) ||
	       param_query(r, head, name, out, size);
}

static bool copy(const char *p, size_t n, char out[PARAM_MAX_CREDENTIAL])
{
	if (n >= PARAM_MAX_CREDENTIAL || !text_valid(p, n))
		return false;
	memcpy(out, p, n);
	out[n] = '\0';
	return true;
}

bool param_basic(const struct http_request *r, const char *head,
		 char user[PARAM_MAX_CREDENTIAL],
		 char password[PARAM_MAX_CREDENTIAL])
{
	unsigned char plain[3 * PARAM_MAX_CREDENTIAL];
	const char *p = head + r->authorization.at, *colon;
	size_t n = r->authorization.n, pad = 0;
	bool ok;
	int len;

	if (n <= 6 || strncasecmp(p, "Basic ", 6) != 0)
		return false;
	for (p += 6, n -= 6; n > 0 && *p == ' '; p++)
		n--;
	while (pad < 2 && pad < n && p[n - 1 - pad] == '=')
		pad++;
	if (n == 0 || n % 4 || n > sizeof(plain))
		return false;
	len = EVP_DecodeBlock(plain, (const unsigned char *)p, (int)n);
	if (len < 0)
		return false;
	len -= (int)pad;
	colon = memchr(plain, ':', (size_t)len);
	ok = colon && copy((char *)plain, (size_t)(colon - (char *)plain),
			   user) &&
	     copy(colon + 1, (size_t)((char *)plain + len - colon - 1),
		  password);
	OPENSSL_cleanse(plain, sizeof(plain));
	return ok;
}

bool param_lists(const struct http_text *t, const char *head, const char *word)
{
	const char *p = head + t->at, *end = p + t->n;
	size_t len = strlen(word);

	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end;

		while (p < stop && *p == ' ')
			p++;
		while (stop > p && stop[-1] == ' ')
			stop--;
		if ((size_t)(stop - p) == len && strncasecmp(p, word, len) == 0)
			return true;
		p = comma ? comma + 1 : end;
	}
	return false;
}

void param_encode(struct buf *b, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		    (c >= '0' && c <= '9') || strchr("-._~", c))
			buf_putc(b, (char)c);
		else
			buf_printf(b, "%%%02X", c);
	}
}
