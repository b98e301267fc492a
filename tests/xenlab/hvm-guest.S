/* An HVM guest: one sector that the BIOS boots and that paints its screen.
 *
 * Rows of sixteen blocks, each a bit of a number, the highest first: light is
 * one. Row 6: how often it has counted, about twice a second. Row 10: the key
 * that was pressed last. Row 14: the first two bytes of the CD, as of the last
 * `c`; 0xffff: there is none. (One that was put in after the BIOS has looked at
 * the drive is not read: the BIOS cannot.) Row 18: 0, or an error, of the last `w`, which
 * writes to the disk, half a MiB from its beginning. `q` turns the machine off,
 * `r` resets it.
 */
	.code16
	.set	COLUMN, 16		/* 8 cells from the left, 2 bytes each */
	.set	ROW, 160
	.set	BLUE, 0x1720
	.set	LIGHT, 0x7f20
	.set	TICKS, 0x46c		/* the BIOS's, 18.2 a second */
	.set	CD, 0xe0		/* SeaBIOS's number of the first drive */
	.set	DISK, 0x80
	.set	BUFFER, 0x8000

	.globl	_start
_start:
	xor	%ax, %ax
	mov	%ax, %ds
	mov	%ax, %ss
	mov	$0x7c00, %sp
	ljmp	$0, $paint
paint:
	cld
	mov	$3, %ax			/* 80 by 25 cells of text */
	int	$0x10
	mov	$0xb800, %ax
	mov	%ax, %es
	xor	%di, %di
	mov	$BLUE, %ax
	mov	$2000, %cx
	rep	stosw
	mov	$name, %si
	mov	$(2 * ROW + COLUMN), %di
1:	lodsb
	mov	$0x1f, %ah
	stosw
	cmpb	$0, (%si)
	jne	1b

main:
	sti
	hlt
	mov	TICKS, %ax
	shr	$3, %ax
	cmp	%ax, last
	je	keys
	mov	%ax, last
	incw	count
	mov	count, %dx
	mov	$(6 * ROW + COLUMN), %di
	call	show
keys:
	mov	$1, %ah
	int	$0x16
	jz	main
	xor	%ah, %ah
	int	$0x16
	xor	%ah, %ah
	push	%ax
	mov	%ax, %dx
	mov	$(10 * ROW + COLUMN), %di
	call	show
	pop	%ax
	cmp	$'c', %al
	je	read
	cmp	$'w', %al
	je	write
	cmp	$'r', %al
	je	reset
	cmp	$'q', %al
	jne	main
	mov	$0xb004, %dx		/* PIIX4: sleep in state S5 */
	mov	$0x2000, %ax
	out	%ax, %dx
	jmp	main
reset:
	mov	$0xfe, %al
	out	%al, $0x64
	jmp	main

read:
	movw	$0xffff, BUFFER
	mov	$packet, %si
	mov	$0x42, %ah
	mov	$CD, %dl
	int	$0x13
	jnc	1f
	movw	$0xffff, BUFFER
1:	mov	BUFFER, %dx
	mov	$(14 * ROW + COLUMN), %di
	call	show
	jmp	main

write:
	movw	$0x5858, BUFFER
	mov	$there, %si
	mov	$0x4300, %ax
	mov	$DISK, %dl
	int	$0x13
	movzbw	%ah, %dx
	mov	$(18 * ROW + COLUMN), %di
	call	show
	jmp	main

/* dx in two rows of blocks at es:di */
show:
	mov	$2, %bl
1:	mov	$16, %bh
2:	mov	$BLUE, %ax
	rol	$1, %dx
	jnc	3f
	mov	$LIGHT, %ax
3:	mov	$4, %cx
	rep	stosw
	dec	%bh
	jnz	2b
	add	$(ROW - 128), %di
	dec	%bl
	jnz	1b
	ret

last:	.word	0
count:	.word	0
packet:	.byte	16, 0			/* its size */
	.word	1			/* sectors */
	.word	BUFFER, 0
	.quad	0			/* the first of them */
there:	.byte	16, 0
	.word	1
	.word	BUFFER, 0
	.quad	1024
name:	.asciz	"HVM guest of xenpool's lab"

	.org	510
	.word	0xaa55
