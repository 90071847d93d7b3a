//! `fovea run`: the appliance.

use super::ModelArgs;
use fovea::Reader;
use fovea::appliance::{Appliance, Classifier, Reading};
use fovea::capture::Source;
use fovea::clock::Records;
use fovea::screen::room;
use std::path::Path;
use std::process::ExitCode;

/// Source to finding to screen, continuously.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  fovea run --demo\n  fovea run --source folder:export --display window\n  \
                        fovea run --source 'replay:scans?fps=2' --display png:screen\n  \
                        fovea run --source 'v4l2:///dev/video0?size=1280x720&format=yuyv'\n  \
                        fovea run --config fovea.toml\n\n\
                        Keys (in a window, or at a screen without a desktop, where touch works too): space freezes the picture and lets it go, held \
                        it clears the screen for the next patient; H heatmap on and off, held the sound; E which eye, held not known.\n\n\
                        Ctrl-C ends it. Exit codes: 0 ended, 2 configuration, model, engine, source or display failed."
)]
pub struct RunArgs {
    /// Where pictures come from: folder:DIR, replay:DIR?fps=N, or on Linux a capture device,
    /// v4l2:///dev/video0?size=WxH&format=F&fps=N (F: grey, nv12, yuyv, uyvy, rgb24, mjpeg; best by its name under
    /// /dev/v4l/by-id)
    #[arg(long)]
    source: Option<String>,
    /// Where the screen goes: auto (a window where there is a desktop, else a screen, else png:screens), png:DIR, window, on
    /// Linux a screen without a desktop, drm:///dev/dri/card0 or fb:///dev/fb0, or none; NAME+png:DIR also keeps its
    /// screens as pictures
    #[arg(long)]
    display: Option<String>,
    /// Keep captured pictures in a folder for --source replay:DIR: at most one a second and 1 GiB, the oldest going first
    #[arg(long, value_name = "DIR")]
    record: Option<std::path::PathBuf>,
    /// Show the bundled synthetic B-scans, a picture in two seconds; in a window again and again
    #[arg(long, conflicts_with = "source")]
    demo: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Runs the appliance with the real model.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.model.config()?;
    config.source = args.source.unwrap_or(config.source);
    config.display = args.display.unwrap_or(config.display);
    config.record = args.record.or(config.record);
    if config.display == "auto" {
        let (name, why) = fovea_board::automatic();
        println!("display: {name}, chosen by auto: {why}; --display names another");
        config.display = name;
    }
    if args.demo {
        let scans = super::bundled("examples/bscans", "README.md").map_err(|looked| {
            anyhow::anyhow!("the bundled B-scans are not here (looked in {looked}); give a folder with --source replay:DIR")
        })?;
        let again = config.display == "window";
        config.source = format!("replay:{}?fps=0.5&loop={again}", scans.display());
    }
    config.source = super::board::with_quirks(&config.source, &config.board, Path::new("/sys"));
    Source::parse(&config.source)?;
    let mut display = fovea_board::open(&config.display)?;
    let stop = super::stop_flag()?;
    let reader = super::reader(&config)?;
    let model = reader.package().identity();
    let mut records = Records::new();
    let size = config.screen();
    let room = room(size.width, size.height);
    let appliance = Appliance::new(&config, &model, classifier(reader, room));
    let appliance = super::board::wire(appliance, &config.board, display.as_ref())?;
    // An engine that hangs or panics is replaced by a new one, as the first was opened.
    let again = config.clone();
    let spare = std::sync::Arc::new(move || match super::reader(&again) {
        Ok(reader) => Ok(classifier(reader, room)),
        Err(error) => Err(error.to_string()),
    });
    appliance
        .spare(spare)
        .run(display.as_mut(), &stop, &mut |line| println!("{} {line}", records.stamp()))?;
    Ok(ExitCode::SUCCESS)
}

/// The appliance's view of a reader: the finding with the heat of its class, for a picture in this room of the screen.
fn classifier(reader: Reader, room: [u32; 2]) -> Classifier {
    let mut reader = reader.shown_in(room);
    Box::new(move |frame| {
        let answer = reader.read(frame).map_err(|error| error.to_string())?;
        let said = &answer.diagnosis;
        let (map, lit) = reader.heat(&answer);
        Ok(Reading {
            class: said.class,
            probabilities: said.probabilities,
            finding: said.finding.name().into(),
            referral: said.finding.referral(),
            quality: said.quality.grade.word().into(),
            reason: said.reason.clone(),
            map,
            place: answer.place,
            lit,
            engine: answer.engine.into(),
            note: answer.note.unwrap_or_default(),
            millis: answer.millis,
        })
    })
}
