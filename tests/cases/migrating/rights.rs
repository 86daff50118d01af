//! The operator's rights, one by one.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::world::{World, documents};

/// Each right of the printed Role that is taken away is named, and no other.
pub(super) fn missed() -> Result<()> {
    let world = World::start()?;
    world.write_file("", "istiod = '10.200.0.2:15012'")?;
    let roles = documents(&world.done(&["role", "--user", "jane", "--cluster", "one"])?)?;
    for role in &roles {
        world.clusters[0].apply(&role.to_string())?;
    }
    let jane = world.clusters[0].kubeconfig("jane")?;
    let admin = world.clusters[0].kubeconfig("admin")?;
    let text = fs::read_to_string(world.file())?;
    let text = text.replace(&*admin.to_string_lossy(), &jane.to_string_lossy());
    fs::write(world.file(), text)?;
    world.done(&["plan"])?;

    let whole = roles.iter().find(|role| role["kind"] == "Role").context("no Role")?;
    let rules = whole["rules"].as_array().context("no rules")?;
    for (at, rule) in rules.iter().enumerate() {
        for verb in rule["verbs"].as_array().into_iter().flatten() {
            world.clusters[0].apply(&without(whole, at, verb)?.to_string())?;
            let right = words(rule, verb)?;
            eventually(format!("`plan` misses only {right}"), PATIENCE, || {
                let told = world.ctl(&["plan"])?;
                let named = format!("one: forbids the migration: no right to {right}: ");
                ensure!(!told.is_success && told.text.contains(&named), "{told:?}");
                ensure!(told.text.matches("no right to").count() == 1, "{told:?}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// The Role without a verb of a rule, or without the rule that has no other.
fn without(role: &Value, at: usize, verb: &Value) -> Result<Value> {
    let mut role = role.clone();
    let rules = role["rules"].as_array_mut().context("no rules")?;
    let verbs = rules[at]["verbs"].as_array_mut().context("no verbs")?;
    verbs.retain(|other| other != verb);
    if verbs.is_empty() {
        rules.remove(at);
    }
    Ok(role)
}

/// `list virtualservices.networking.istio.io in onlineboutique`.
fn words(rule: &Value, verb: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    let (verb, resource) = (text(verb)?, text(&rule["resources"][0])?);
    let group = match rule["apiGroups"] == json!([""]) {
        true => String::new(),
        false => format!(".{}", text(&rule["apiGroups"][0])?),
    };
    Ok(format!("{verb} {resource}{group} in onlineboutique"))
}
