//! The program; all of it is in the library, which the fuzz targets are built with, too.

fn main() -> std::process::ExitCode {
    istio_vm_ctl::main()
}
