/* Links the static library into a C program and runs it. */
int pcidevs_try(void);

/* Rust's prebuilt alloc refers to it for unwinding, which a build with panic=abort never does. */
void rust_eh_personality(void) {}

int main(void) { return pcidevs_try(); }
