//! Entry point; everything is in the library.

fn main() -> std::process::ExitCode {
    istio_vm_agent::cli::main()
}
