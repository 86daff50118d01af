//! The arguments, the exit codes, and the units that call verbs.

use std::fs;
use std::path::Path;

use super::*;

#[test]
fn arguments_are_consistent_and_global_options_follow_the_verb() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
    let arguments = Arguments::parse_from(["istio-vm-agent", "status", "--output", "json", "--config", "/c"]);
    assert_eq!((arguments.output, arguments.config), (Form::Json, PathBuf::from("/c")));
}

#[test]
fn help_is_as_wide_as_its_terminal() {
    use clap::CommandFactory;
    for verb in ["check", "manifests", "up"] {
        let mut command = Arguments::command();
        let verb = command.find_subcommand_mut(verb).unwrap().clone();
        let help = verb.term_width(80).render_long_help().to_string();
        let wide: Vec<&str> = help.lines().filter(|line| line.len() > 80).collect();
        assert!(wide.is_empty(), "{}", wide.join("\n"));
    }
}

#[test]
fn help_has_every_exit_code_and_that_of_proxy_every_form() {
    use clap::CommandFactory;
    let mut command = Arguments::command();
    command.build();
    let help = command.render_long_help().to_string();
    for code in [FAILURE, DIFFERS, USAGE, UNAVAILABLE, FOR_GOOD, CONFIG] {
        let code = code.to_string();
        assert!(help.split_whitespace().any(|word| word == code), "no {code}: {help}");
    }
    let proxy = command.find_subcommand_mut("proxy").unwrap();
    let help = proxy.find_subcommand_mut("clusters").unwrap().render_long_help();
    for form in ["text", "json", "yaml"] {
        assert!(help.to_string().contains(&format!("- {form}:")), "no {form}: {help}");
    }
}

#[test]
fn yaml_is_refused_where_it_is_not_had() {
    let ended = dispatch(&Arguments::parse_from(["istio-vm-agent", "version", "-o", "yaml"]));
    assert_eq!(code(&ended), USAGE, "{ended:?}");
}

#[test]
fn what_reload_and_revert_can_not_do_is_a_document() {
    for verb in ["reload", "revert", "status", "plan", "version"] {
        let arguments = Arguments::parse_from(["istio-vm-agent", verb, "-o", "json"]);
        assert!(arguments.verb.has_document(), "{verb}");
    }
}

#[test]
fn call_to_this_vm_is_no_option() {
    for arguments in [
        ["->:3550", "--plaintext"],
        ["--plaintext", "10.0.0.1->:3550"],
        ["--plaintext", "--last-error"],
    ] {
        let arguments = [&["istio-vm-agent", "explain"][..], &arguments].concat();
        assert!(Arguments::try_parse_from(&arguments).is_ok(), "{arguments:?}");
    }
}

#[test]
fn time_to_switch_within_is_given_to_a_switch_alone() {
    for arguments in [
        &["--within", "5s"][..],
        &["--within", "5s", "--dry-run"],
        &["--within", "5s", "--undo"],
    ] {
        let arguments = [&["istio-vm-agent", "import"], arguments].concat();
        assert!(Arguments::try_parse_from(&arguments).is_err(), "{arguments:?}");
    }
    for arguments in [&["--within", "5s", "--switch"][..], &["--dry-run"], &["--undo"]] {
        let arguments = [&["istio-vm-agent", "import"], arguments].concat();
        assert!(Arguments::try_parse_from(&arguments).is_ok(), "{arguments:?}");
    }
}

#[test]
fn time_without_a_unit_is_refused_in_our_words() {
    for arguments in [
        &["import", "--switch", "--within", "5"][..],
        &["check", "--wait=5"],
        &["status", "--wait", "ready=5"],
    ] {
        let arguments = [&["istio-vm-agent"], arguments].concat();
        let error = Arguments::try_parse_from(&arguments).unwrap_err().to_string();
        assert!(
            error.contains("write `ready`") || error.contains("write a number and its unit, such as 90s"),
            "{error}"
        );
    }
}

/// `stopped` and `guard` ask the agent's unit first, and then are as `revert` and `run`; `import` writes the file.
#[test]
fn configuration_that_is_named_and_can_not_be_read_is_an_error_of_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let broken = folder.path().join("broken.toml");
    fs::write(&broken, "[intercept]\nbakcend = 1\n").unwrap();
    let manifests = ["manifests", "--port", "grpc:3550"];
    for verb in [
        &["run"][..],
        &["check"],
        &["plan"],
        &["reload"],
        &["revert"],
        &["status"],
        &["version"],
        &["explain", "cart:7070"],
        &["dns", "cart"],
        &["proxy", "secrets"],
        &manifests,
    ] {
        for path in [&missing, &broken, &folder.path().to_owned()] {
            let path = path.to_str().unwrap();
            let arguments = [&["istio-vm-agent", "--config", path], verb].concat();
            let ended = dispatch(&Arguments::parse_from(arguments));
            assert_eq!(code(&ended), CONFIG, "{verb:?} {path}: {ended:?}");
        }
    }
}

#[test]
fn end_for_good_is_a_success_after_which_the_unit_starts_no_agent() {
    let unit = include_str!("../../../systemd/istio-vm-agent.service");
    let code = code(&Ok(Outcome::ForGood)).to_string();
    for key in ["SuccessExitStatus=", "RestartPreventExitStatus="] {
        let codes = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        assert!(codes.split(' ').any(|listed| listed == code), "{key}{codes}");
    }
}

#[test]
fn each_unit_has_a_bound_of_memory_and_of_tasks_and_leaves_no_core() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let units = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let units: Vec<_> = units
        .filter(|path| path.extension().is_some_and(|it| it == "service"))
        .collect();
    assert!(units.len() > 5, "{units:?}");
    for unit in units {
        let text = fs::read_to_string(&unit).unwrap();
        for key in ["MemoryMax=", "TasksMax=", "LimitCORE=0"] {
            assert!(
                text.lines().any(|line| line.starts_with(key)),
                "{} has no {key}",
                unit.display()
            );
        }
    }
}

#[test]
fn unit_has_one_heap_for_all_threads_and_gives_its_end_back() {
    let unit = include_str!("../../../systemd/istio-vm-agent.service");
    let environment = unit.lines().find_map(|line| line.strip_prefix("Environment="));
    assert_eq!(environment, Some("MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072"));
}

#[test]
fn failure_that_may_pass_is_no_configuration_error_to_the_unit() {
    let wrong = || ConfigError::about("cluster.env".to_owned(), "ISTIO_SVC_IP: is not set");
    assert_eq!(code(&Err(wrong().into())), CONFIG);
    assert_eq!(code(&Err(wrong().passing().into())), FAILURE);
    let both = ConfigError::all([wrong().passing(), ConfigError::about("mesh.yaml".to_owned(), "bad")]);
    assert_eq!(code(&Err(both.unwrap().into())), CONFIG);
}
