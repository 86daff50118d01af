//! `run`, with a Prometheus that says what the case wants.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use e2e::network::Host;
use e2e::programs;

use super::world::{World, end, slice};

/// Figures of the gate for one side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    requests: u32,
    succeeded: u32,
    p99: u32,
}

pub(super) const GOOD: Counted = Counted {
    requests: 5000,
    succeeded: 5000,
    p99: 20,
};

#[derive(Clone, Debug)]
pub(super) struct Prometheus {
    /// Of VM and pods.
    counted: Arc<Mutex<[Counted; 2]>>,
    moment: Arc<AtomicU32>,
}

impl Prometheus {
    /// Serves on the loopback of the workstation until the test program ends.
    pub(super) fn start(world: &World, counted: [Counted; 2]) -> Result<Self> {
        let listener = world
            .network
            .within(Host::Pod, || Ok(TcpListener::bind("127.0.0.1:9090")?))?;
        let prometheus = Self {
            counted: Arc::new(Mutex::new(counted)),
            moment: Arc::new(AtomicU32::new(1)),
        };
        let serving = prometheus.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that hung up has no use for the answer.
                let _ = serving.answer(stream);
            }
        });
        Ok(prometheus)
    }

    fn set(&self, pods: Counted) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = [GOOD, pods];
    }

    /// Each answer is of a later moment: what was counted grows from one to the next.
    fn answer(&self, mut stream: TcpStream) -> Result<()> {
        let mut head = Vec::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(reader.read_until(b'\n', &mut head)? > 0, "half a request");
        }
        let request = String::from_utf8_lossy(&head).into_owned();
        let counted = *self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let moment = self.moment.fetch_add(1, Ordering::Relaxed);
        let samples = ["Vm", "Pods"].iter().zip(counted).flat_map(|(side, counted)| {
            let Counted {
                requests,
                succeeded,
                p99,
            } = counted;
            [
                ("Requests", requests * moment),
                ("Succeeded", succeeded * moment),
                ("P99", p99),
            ]
            .map(|(figure, number)| {
                let name = format!("{side}{figure}");
                let sample = format!(r#"{{"metric":{{"figure":"{name}"}},"value":[{moment},"{number}"]}}"#);
                request.contains(&name).then_some(sample)
            })
        });
        let result = samples.flatten().collect::<Vec<_>>().join(",");
        let body = format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).context("hung up")
    }
}

/// At no share, with a gate that holds so long.
fn start(hold: &str) -> Result<World> {
    let world = World::start()?;
    configure(&world, hold)?;
    world.done(&["apply"])?;
    Ok(world)
}

fn configure(world: &World, hold: &str) -> Result<()> {
    let gate = format!("gate = {{ window = '1s', p99 = '300ms' }}\nrun = {{ steps = [20, 100], hold = '{hold}' }}");
    world.write_file(&gate, "prometheus = 'http://127.0.0.1:9090'")?;
    let text = std::fs::read_to_string(world.file())?;
    let text = text.replace("name = 'two'", "name = 'two'\nprometheus = 'http://127.0.0.1:9090'");
    std::fs::write(world.file(), text)?;
    Ok(())
}

pub(super) fn by_verdict() -> Result<()> {
    let world = start("1s")?;
    // Nobody listens yet.
    world.refused(&["run"], "no verdict")?;
    world.expect([80, 20])?;
    let prometheus = Prometheus::start(&world, [GOOD; 2])?;
    hooks(&world)?;
    let told = world.done(&["run", "--json", "--report", "run.md"])?;
    world.expect([0, 100])?;
    reported(&world, &told)?;
    for line in told.lines() {
        serde_json::from_str::<serde_json::Value>(line).with_context(|| line.to_owned())?;
    }
    ensure!(told.contains(r#""event":"judged","share":20"#), "{told}");
    world.done(&["return"])?;
    for (counted, words) in [
        (
            Counted {
                succeeded: 4750,
                ..GOOD
            },
            "95.000 % of the pods' calls succeed",
        ),
        (Counted { p99: 320, ..GOOD }, "p99 is 320 ms"),
        (Counted { requests: 3, ..GOOD }, "hang or were not sent"),
    ] {
        prometheus.set(counted);
        world.refused(&["run"], words)?;
        world.expect([100, 0])?;
    }
    Ok(())
}

/// The page says each step, and is what its lines make again.
fn reported(world: &World, told: &str) -> Result<()> {
    let folder = world.network.folder();
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let page = read("run.md")?;
    for words in ["It ended well", "| 20 % | one |", "| 100 % | two |", "](run.svg)"] {
        ensure!(page.contains(words), "{words:?} is not in\n{page}");
    }
    std::fs::write(folder.join("run.jsonl"), told)?;
    world.done(&["report", "run.jsonl", "--to", "again.md"])?;
    ensure!(
        read("again.svg")? == read("run.svg")?,
        "another picture of the same run"
    );
    ensure!(
        read("again.md")? == page.replace("run.svg", "again.svg"),
        "another page of the same run"
    );
    Ok(())
}

/// A hook that fails forbids its step; one that doesn't is told the share.
fn hooks(world: &World) -> Result<()> {
    let plain = std::fs::read_to_string(world.file())?;
    let heard = world.network.folder().join("heard");
    let with = |before: &str, after: &str| {
        let hooks = format!("run = {{ before = ['sh', '-c', '{before}'], after = ['sh', '-c', '{after}'], ");
        std::fs::write(world.file(), plain.replace("run = { ", &hooks))
    };
    world.done(&["return"])?;
    with("exit 3", "true")?;
    world.refused(&["run"], "run.before: \"sh\" ended with exit status: 3")?;
    world.expect([100, 0])?;
    let say = |when: &str| format!("echo {when} $ISTIO_VM_CTL_SHARE >>{}", heard.display());
    with(
        &say("before"),
        &format!("{}; test $ISTIO_VM_CTL_SHARE = 20", say("after")),
    )?;
    world.refused(&["run"], "run.after: \"sh\" ended with exit status: 1")?;
    let expected = "before 20\nafter 20\nbefore 100\nafter 100\n";
    ensure!(
        std::fs::read_to_string(&heard)? == expected,
        "the hooks heard otherwise"
    );
    world.done(&["return"])?;
    std::fs::write(world.file(), plain)?;
    Ok(())
}

pub(super) fn taken_over() -> Result<()> {
    let world = start("1h")?;
    let _prometheus = Prometheus::start(&world, [GOOD; 2])?;
    for (verb, words, weights) in [
        ("pause", "has taken over", [80, 20]),
        ("return", "pods get 0 %", [100, 0]),
    ] {
        let mut running = world.spawn(&["run"])?;
        let told = BufReader::new(running.stdout.take().context("no stdout")?);
        let judged = told
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains("at 20 %: good"));
        ensure!(judged.is_some(), "{:?}", end(running)?);
        world.done(&[verb])?;
        let ended = end(running)?;
        ensure!(!ended.is_success && ended.text.contains(words), "{verb}: {ended:?}");
        world.expect(weights)?;
    }
    Ok(())
}

/// Lines that stdout alone has.
fn lines_without_notes(printed: &str) -> String {
    let is_note = |line: &&str| line.starts_with("istio-vm-ctl: ");
    printed
        .lines()
        .filter(|line| !is_note(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The commands of docs/migrate.md, in its order, with what they are piped into.
pub(super) fn documented() -> Result<()> {
    let world = World::start()?;
    super::init::prepare(&world)?;
    configure(&world, "1s")?;
    let file = std::fs::read_to_string(world.file())?;
    let none = Counted { requests: 0, ..GOOD };
    let _prometheus = Prometheus::start(&world, [none, GOOD])?;
    for cluster in &world.clusters {
        // What Kubernetes' controller makes of the Service when it selects the pods.
        cluster.apply(&slice("productcatalogservice"))?;
    }
    let text = std::fs::read_to_string(programs::repository("docs/migrate.md"))?;
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next());
    let mut count = 0;
    for line in blocks.flat_map(str::lines) {
        let (command, pipe) = line.split_once(" | ").unwrap_or((line, ""));
        let arguments: Vec<&str> = command.split_whitespace().skip(1).collect();
        if arguments[0] == "init" {
            std::fs::remove_file(world.file())?;
        }
        let printed = world.done(&arguments)?;
        // That of the case has less time for each step.
        std::fs::write(world.file(), &file)?;
        let printed = lines_without_notes(&printed);
        match pipe {
            "" => {}
            "kubectl --context gke-one apply -f -" => world.clusters[0].apply(&printed)?,
            "kubectl --context gke-two apply -f -" => world.clusters[1].apply(&printed)?,
            other => bail!("{other:?} is not known here"),
        }
        count += 1;
    }
    ensure!(count > 8, "the commands are not where this case looks");
    Ok(())
}
