/* The smallest that Xen takes for a kernel, paravirtualised or in hardware: for guests that are made and never run. */
	.macro	note type
	.balign	4
	.long	4, 8, \type
	.asciz	"Xen"
	.endm
	.text
	.globl	_start
_start:	hlt
	jmp	_start

	.section .note.Xen, "a", @note
	/* Entry point of a paravirtualised guest (XEN_ELFNOTE_ENTRY), and in hardware (PHYS32_ENTRY). */
	note	1
	.quad	_start
	note	18
	.quad	_start
	/* Where its addresses begin (VIRT_BASE). */
	note	3
	.quad	0
	/* XEN_VERSION, LOADER, PAE_MODE: texts of 8 bytes. */
	note	5
	.asciz	"xen-3.0"
	note	8
	.asciz	"generic"
	note	9
	.asciz	"yes"
	.zero	4
