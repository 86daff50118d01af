//! Arrows between the files of one folder: who imports whom, straight or by what the folder's own file hands on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Of each folder the files that each of its files imports, folders within it for their files.
type Arrows = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

#[test]
fn files_of_one_folder_import_each_other_in_no_circle() {
    let ctl = Path::new(env!("CARGO_MANIFEST_DIR")).join("ctl/src");
    for (folder, arrows) in [super::root(), ctl].iter().flat_map(|root| arrows(root)) {
        let in_circle: Vec<&String> = arrows
            .keys()
            .filter(|file| reach(&arrows, file).contains(*file))
            .collect();
        assert!(
            in_circle.is_empty(),
            "{folder}: {in_circle:?} import each other in a circle; move what both need into a file of its own"
        );
    }
}

/// All that `file` imports, and what that imports in turn.
fn reach<'a>(arrows: &'a BTreeMap<String, BTreeSet<String>>, file: &str) -> BTreeSet<&'a String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        for imported in arrows.get(file).into_iter().flatten() {
            if reached.insert(imported) {
                next.push(imported);
            }
        }
    }
    reached
}

fn arrows(root: &Path) -> Arrows {
    let files = super::sources_below(root.to_owned());
    let texts: BTreeMap<Vec<String>, String> = files.iter().map(|file| read(root, file)).collect();
    let mut arrows = Arrows::new();
    for (module, text) in &texts {
        for path in paths(text).iter().filter_map(|path| absolute(module, path)) {
            let shared = module.iter().zip(&path).take_while(|(own, other)| own == other).count();
            let (Some(own), Some(other)) = (module.get(shared), path.get(shared)) else {
                continue;
            };
            let folder = &module[..shared];
            let is_file = |name: &String| texts.contains_key(&[folder, std::slice::from_ref(name)].concat());
            let imported = match is_file(other) {
                true => Some(other.clone()),
                false => texts
                    .get(folder)
                    .and_then(|face| handed_on(face, other))
                    .filter(is_file),
            };
            if let Some(imported) = imported.filter(|imported| imported != own) {
                let of_folder = arrows.entry(folder.join("/")).or_default();
                of_folder.entry(own.clone()).or_default().insert(imported);
            }
        }
    }
    arrows
}

/// A file's module, and its text without comments and tests.
fn read(root: &Path, file: &Path) -> (Vec<String>, String) {
    let below = file.strip_prefix(root).unwrap().with_extension("");
    let module = below.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let is_of_tests = below.iter().any(|part| {
        ["tests", "fixtures", "fuzz", "golden", "fake"]
            .iter()
            .any(|it| part == *it)
    });
    let text = match is_of_tests {
        true => String::new(),
        false => fs::read_to_string(file).unwrap(),
    };
    let production = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = production
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    (module, code.collect::<Vec<_>>().join("\n"))
}

/// The file of a folder whose `name` the folder's own file uses, and so may hand on.
fn handed_on(face: &str, name: &str) -> Option<String> {
    let paths = paths(face);
    let path = paths
        .iter()
        .find(|path| path.len() > 1 && path.last().is_some_and(|last| last == name))?;
    path.iter().find(|part| *part != "self").cloned()
}

/// A path of the crate from its root on; `None` for one of another crate, or of a file's own children.
fn absolute(module: &[String], path: &[String]) -> Option<Vec<String>> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    match path.first()?.as_str() {
        "crate" => Some(path[1..].to_vec()),
        "super" => Some([&module[..module.len().checked_sub(ups)?], &path[ups..]].concat()),
        _ => None,
    }
}

/// Every path of a text, those in the braces of a `use` one by one.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let (mut prefix, mut open): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_alphanumeric() || "_{},;".contains(c)) {
        let end = rest[at..]
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(rest.len(), |end| at + end);
        let word = &rest[at..end];
        match rest[at..].chars().next() {
            Some('{') => open.push(prefix.len()),
            Some('}') => {
                open.pop();
                prefix.truncate(open.last().copied().unwrap_or_default());
            }
            Some(',' | ';') => prefix.truncate(open.last().copied().unwrap_or_default()),
            _ => {}
        }
        let after = rest[end.max(at + 1)..].strip_prefix("::");
        match (word.is_empty(), after) {
            (true, _) => {}
            (false, Some(_)) => prefix.push(word.to_owned()),
            (false, None) => {
                paths.push([prefix.as_slice(), &[word.to_owned()]].concat());
                prefix.truncate(open.last().copied().unwrap_or_default());
            }
        }
        rest = after.unwrap_or_else(|| &rest[end.max(at + 1)..]);
    }
    paths
}
