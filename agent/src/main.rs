//! Entry point; everything else is in the library.

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Wipes memory that is given back: keys and tokens pass through the buffers of TLS, gRPC, JSON and PEM, which know
/// nothing of them. It costs a memset of what is freed.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> std::process::ExitCode {
    istio_vm_agent::cli::main()
}
