//! Values in effect, each with the place that it is from.

use serde::Serialize;
use serde_json::Value;

use super::Config;

/// The origin of a value that nobody has written.
pub(crate) const DEFAULT: &str = "default";

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// The key's name, with dots between.
    pub key: String,
    /// `null` where there is none.
    pub value: Value,
    /// The place where it is written, or who made it up.
    pub origin: String,
}

impl Setting {
    pub(crate) fn new(key: impl Into<String>, value: impl Into<Value>, origin: impl ToString) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            origin: origin.to_string(),
        }
    }
}

impl Config {
    /// Every key, without what may be a secret.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        // No type in it fails to be encoded.
        let whole = serde_json::to_value(self).unwrap_or_default();
        self.collect("", whole, &mut settings);
        settings
    }

    fn collect(&self, above: &str, value: Value, settings: &mut Vec<Setting>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    let key = if above.is_empty() {
                        name
                    } else {
                        format!("{above}.{name}")
                    };
                    self.collect(&key, value, settings);
                }
            }
            Value::Array(entries) if entries.first().is_some_and(Value::is_object) => {
                for (index, entry) in entries.into_iter().enumerate() {
                    self.collect(&format!("{above}[{index}]"), entry, settings);
                }
            }
            value => {
                let place = self.places.of(above).map(ToString::to_string);
                settings.push(Setting::new(above, value, place.unwrap_or_else(|| DEFAULT.to_owned())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn setting_is_told_with_its_place_and_no_secret() {
        let text = "[join]\ndirectory = { path = '/b' }\n[workload.container]\nname = 'web'\nimage = 'web:1'\n\
                    env = { TOKEN = 'hunter2' }\n\
                    command = ['--token', 'hunter2']\n[health.probe]\nhttp = { port = 80, headers = { Authorization = 'hunter2' } }\n";
        let config = Config::parse(Path::new("c.toml"), text).unwrap();
        let settings = config.settings();
        let find = |key: &str| settings.iter().find(|setting| setting.key == key).expect(key);
        assert_eq!(
            find("join.directory.path"),
            &Setting::new("join.directory.path", "/b", "c.toml:2:15")
        );
        assert_eq!(find("identity.ttl"), &Setting::new("identity.ttl", "1day", DEFAULT));
        assert_eq!(find("intercept.on_envoy_down.inbound").value, "closed");
        assert_eq!(find("workload.container.env.TOKEN").value, crate::config::NOT_SHOWN);
        assert_eq!(find("health.probe.http.port").origin, "c.toml:9:10");
        assert_eq!(find("envoy.drain").value, Value::Null);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let text = "[join]\ndirectory = { path = '/b' }\n[health.probe]\nexec = { command = ['/p', 'hunter2'] }\n";
        let settings = Config::parse(Path::new("c.toml"), text).unwrap().settings();
        let command = settings
            .iter()
            .find(|it| it.key == "health.probe.exec.command")
            .unwrap();
        assert_eq!(command.value, serde_json::json!(["/p", crate::config::NOT_SHOWN]));
        // What is shown is what is read.
        let shown = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(serde_json::from_value::<Config>(shown).unwrap(), Config::default());
    }
}
